"""The engine as the service holds it: each window's sound is charged to the caller whose request queues it."""

from concurrent.futures import Future

import numpy as np

from server.engine import Engine, EngineLimits
from server.fair_queue import ItemResult, Job
from server.lane import Lane
from server.metrics import Metrics
from server.quota import Quota, current_caller


class MeteredEngine(Engine):
    """Every route's windows pass here, so none can forget to charge them."""

    def __init__(self, limits: EngineLimits, metrics: Metrics, quota: Quota) -> None:
        super().__init__(limits, metrics)
        self._quota = quota

    def submit(self, job: Job, waveform: np.ndarray) -> Future[ItemResult]:
        """As the engine's; work of the server's own, without a caller, is free."""
        future = super().submit(job, waveform)
        if caller := current_caller.get():
            self._quota.charge(caller, len(waveform) / job.lane.sample_rate)
        return future

    def uses(self, lane: Lane) -> bool:
        """Whether a window of this lane waits or is on a device; one that is there runs on when its caller leaves."""
        with self._changed:
            running = [worker.running for worker in self._workers]
            return self.queued_windows(lane) > 0 or any(batch is not None and batch.lane is lane for batch in running)
