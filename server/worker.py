"""One device's worker thread: takes a batch, runs it, answers its futures, and outlives whatever goes wrong.

batch ─► runtime.run ─► answers
             │ raises: the batch is split in two, and each half is run again, down to the item at fault
             │ out of memory: the device's batch budget is halved first
             │ dies (anything beyond Exception): its items fail, and the worker starts anew
             │ device lost: its items fail, and the server ends, to be started anew
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import structlog

from server.engine_errors import DeadlineError, InferenceFailedError
from server.fair_queue import Item, ItemResult
from server.lane import Lane
from server.metrics import Metrics
from server.runtimes.base import BatchResult, DeviceLostError, DeviceOutOfMemoryError, ProcessEndedError
from server.staging import Staging

log = structlog.get_logger()

RESTART_SECONDS = 0.1  # between a worker's death and its next life, so that dying at once does not spin
STUCK_SECONDS = 60.0  # a batch may take this long, whatever the cost model says: a GPU's first ones do
STUCK_FACTOR = 20.0


@dataclass(frozen=True)
class Running:
    """The batch on the device."""

    lane: Lane
    windows: int
    started: float
    batches: int = 1  # that run at the time, this one counted

    @property
    def predicted_seconds(self) -> float:
        return self.lane.cost.predict(self.windows, self.lane.batch_windows)

    @property
    def remaining_seconds(self) -> float:
        return max(0.0, self.predicted_seconds - (time.monotonic() - self.started))

    @property
    def is_stuck(self) -> bool:
        seconds = time.monotonic() - self.started
        return seconds > STUCK_SECONDS and seconds > STUCK_FACTOR * self.predicted_seconds


class Worker:
    """Runs on device `device` what `take` gives it; `take` waits for work and answers None at the end.

    `plan` tells, without waiting, what `take` would give next.
    """

    def __init__(
        self,
        device: int,
        take: Callable[["Worker"], list[Item] | None],
        plan: Callable[["Worker"], list[Item]],
        metrics: Metrics,
        batch_numbers: Iterator[int],
    ) -> None:
        self.device = device
        self.running: Running | None = None
        self.deaths = 0
        self.lost = ""  # how the device was lost, in one sentence
        self._take, self._plan = take, plan
        self._metrics = metrics
        self._batch_numbers = batch_numbers
        self._batch: list[Item] = []  # what must fail if the worker dies
        self._staging = Staging()
        self._stager = ThreadPoolExecutor(1, thread_name_prefix=f"hark-staging-{device}")
        self._thread = threading.Thread(target=self._live, name=f"hark-engine-{device}", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Waits for the thread's end, once `take` has answered None."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _live(self) -> None:
        """Works until the end, life after life."""
        with self._stager:
            while not self._work():
                time.sleep(RESTART_SECONDS)

    def _work(self) -> bool:
        """Serves batches; True at the end, False when the worker died of something that is no Exception."""
        try:
            while (batch := self._take(self)) is not None:
                self._batch = batch
                if batch:
                    self._serve(batch)
                batch = self._batch = []
        except BaseException as death:
            log.critical("worker died and is started anew", device=self.device, exc_info=death)
            self.deaths += 1
            self._metrics.worker_restarts.inc()
            _fail([item for item in self._batch if not item.future.done()], death)
            self._batch, self.running = [], None
            return False
        return True

    def _serve(self, batch: list[Item]) -> None:
        lane = batch[0].job.lane
        if self._staging.is_worthwhile(lane):
            batch, padded, lengths = self._staging.collect(batch)
            self._stager.submit(self._prepare_next)
        else:
            padded, lengths = lane.pad([item.waveform for item in batch])
        self._run(batch, padded, lengths)

    def _prepare_next(self) -> None:
        planned = self._plan(self)
        if planned and self._staging.is_worthwhile(planned[0].job.lane):
            self._staging.prepare(planned)

    def _run(self, batch: list[Item], padded: np.ndarray, lengths: np.ndarray, is_last_try: bool = False) -> None:
        """Runs one batch and answers its futures; a failing one is split until the items at fault stand alone.

        One item alone that was there when its process ended is tried once more.
        """
        lane, started = batch[0].job.lane, time.monotonic()
        try:
            result = lane.run_padded(padded, lengths, self.device, self.running.batches if self.running else 1)
        except Exception as error:
            if len(batch) == 1 and isinstance(error, ProcessEndedError) and not is_last_try:
                self._run(batch, padded, lengths, is_last_try=True)
            else:
                self._retry_or_fail(batch, error)
            return
        finished = time.monotonic()
        lane.cost.observe(len(batch), finished - started)
        lane.budget(self.device).grow(len(batch))
        began = finished - result.features_seconds - result.inference_seconds  # until then it waited, ready, for a core
        self._measure(batch, result, began)
        self._answer(batch, result, began)

    def _retry_or_fail(self, batch: list[Item], error: Exception) -> None:
        lane, request_ids = batch[0].job.lane, [item.job.request_id for item in batch]
        if isinstance(error, DeviceLostError):
            self.lost = f"device {lane.runtimes[self.device].info.device} is lost"
            log.critical("device lost", model=lane.model, request_ids=request_ids, exc_info=error)
            _fail(batch, error)
            return
        if isinstance(error, DeviceOutOfMemoryError | MemoryError):
            lane.budget(self.device).shrink(len(batch))
        if len(batch) == 1:
            log.error("batch failed", model=lane.model, request_ids=request_ids, exc_info=error)
            _fail(batch, error)
            return
        log.warning("batch failed and is split", model=lane.model, request_ids=request_ids, error=repr(error))
        half = (len(batch) + 1) // 2
        while batch:
            size = min(half, lane.budget(self.device).windows)
            part, batch = batch[:size], batch[size:]
            if wanted := _without_late(part):
                self._run(wanted, *lane.pad([item.waveform for item in wanted]))

    def _answer(self, batch: list[Item], result: BatchResult, began: float) -> None:
        number = next(self._batch_numbers)
        for item, logits, embedding in zip(batch, result.logits, result.embeddings, strict=True):
            if np.isfinite(logits).all() and np.isfinite(embedding).all():
                timing = (began - item.submitted, result.features_seconds, result.inference_seconds)
                item.future.set_result(ItemResult(logits, embedding, *timing, number))
            else:
                log.error("the answer is not finite", model=item.job.lane.model, request_ids=[item.job.request_id])
                item.future.set_exception(InferenceFailedError("the answer is not finite"))

    def _measure(self, batch: list[Item], result: BatchResult, began: float) -> None:
        model, sample_rate, metrics = batch[0].job.lane.model, batch[0].job.lane.sample_rate, self._metrics
        for item in batch:
            metrics.stage_seconds.labels(model, "queue").observe(began - item.submitted)
        metrics.stage_seconds.labels(model, "features").observe(result.features_seconds)
        metrics.stage_seconds.labels(model, "inference").observe(result.inference_seconds)
        metrics.batch_windows.labels(model).observe(len(batch))
        metrics.windows.labels(model).inc(len(batch))
        metrics.audio_seconds.labels(model).inc(sum(len(item.waveform) for item in batch) / sample_rate)


def _without_late(batch: Sequence[Item]) -> list[Item]:
    """Those whose deadline has not passed; the others are told."""
    fail_late([item for item in batch if item.job.is_late])
    return [item for item in batch if not item.future.done()]


def fail_late(items: Sequence[Item]) -> None:
    """Tells the callers of these items that the deadline passed."""
    for item in items:
        item.future.set_exception(DeadlineError("the deadline passed while the request waited for the device"))


def _fail(batch: Sequence[Item], cause: BaseException) -> None:
    """Gives every item an error of its own, because a shared one would gather the tracebacks of all who raise it."""
    for item in batch:
        error = InferenceFailedError("the runtime failed on this batch")
        error.__cause__ = cause
        item.future.set_exception(error)


def number_batches() -> Iterator[int]:
    """1, 2, 3 and so on, over all workers."""
    return itertools.count(1)
