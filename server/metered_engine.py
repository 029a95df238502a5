"""The engine as the service holds it: each window's sound is charged to the caller whose request queues it."""

from collections.abc import Sequence
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

    def submit_all(self, job: Job, waveforms: Sequence[np.ndarray]) -> list[Future[ItemResult]]:
        """As the engine's; work of the server's own, without a caller, is free."""
        futures = super().submit_all(job, waveforms)
        if caller := current_caller.get():
            self._quota.charge(caller, sum(len(waveform) for waveform in waveforms) / job.lane.sample_rate)
        return futures

    def uses(self, lane: Lane) -> bool:
        """Whether a window of this lane waits or is on a device; one that is there runs on when its caller leaves."""
        with self._changed:
            running = [worker.running for worker in self._workers]
            return self.queued_windows(lane) > 0 or any(batch is not None and batch.lane is lane for batch in running)
