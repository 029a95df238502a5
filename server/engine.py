"""The batching engine: one bounded queue and one worker thread per device, one future per item.

    admit ─► submit ─► this request's line ─┐
    admit ─► submit ─► this request's line ─┴► one item of each in turn ─► runtime.run ─► futures

There is no batching timer: when the device is free it takes what waits, one item of each request in turn, so a short
clip never stands behind all the windows of a long one. The engine knows threads and futures, not HTTP or asyncio.

    EngineError
    ├── QueueFullError         no room, or the predicted wait would pass the deadline
    ├── EngineClosedError      draining or stopped
    ├── DeadlineError          the deadline passed before the answer was ready
    └── InferenceFailedError   the runtime raised, or answered a wrong shape or a number that is not finite
"""

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import structlog

from server.fair_queue import FairQueue, Item, ItemResult, Job
from server.lane import Lane
from server.metrics import Metrics
from server.runtimes.base import BatchResult

log = structlog.get_logger()


class EngineError(Exception):
    """Base of what the engine raises or sets on a future."""


class QueueFullError(EngineError):
    """No room; `retry_after_seconds` is when the queue should have drained, `reason` is "full" or "deadline"."""

    def __init__(self, message: str, retry_after_seconds: float, reason: str) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.reason = reason


class EngineClosedError(EngineError):
    """The engine takes no more work."""


class DeadlineError(EngineError):
    """The request's deadline passed before its answer was ready."""


class InferenceFailedError(EngineError):
    """The runtime failed on the batch that held this item; the cause is chained."""


@dataclass(frozen=True)
class EngineLimits:
    """How much may wait at once: audio (windows counted whole), requests, and windows of any one request."""

    queue_audio_seconds: float
    requests: int
    windows_in_flight: int


class Engine:
    """One device's queue and worker; deadlines are `time.monotonic()` seconds."""

    def __init__(self, limits: EngineLimits, metrics: Metrics) -> None:
        self.limits = limits
        self._metrics = metrics
        self._queue = FairQueue()
        self._changed = threading.Condition()  # guards the queue and the flags below
        self._accepting = True
        self._stopping = False
        self._running: tuple[Lane, int, float] | None = None  # lane, windows and start of the batch on the device
        self._batches = 0
        self._worker = threading.Thread(target=self._work, name="hark-engine", daemon=True)

    def start(self) -> None:
        """Starts the worker thread."""
        self._worker.start()

    # The door

    def check_room(self, lane: Lane, deadline: float | None = None) -> None:
        """Refuses a request before its body is read.

        Raises: EngineClosedError when draining; what `admit` would raise now.
        """
        with self._changed:
            if not self._accepting:
                raise EngineClosedError("the server is shutting down; send the request to another replica")
            self._refuse_or_pass(lane, deadline)

    def admit(self, lane: Lane, deadline: float | None = None, request_id: str = "") -> Job:
        """Opens a request, with room reserved for its first window; later windows are never refused.

        Draining lets in who came before: a request is accepted at `check_room`, and its body may take a while.

        Raises: EngineClosedError after `stop`; QueueFullError when the queue, or the number of requests, is at its
        limit or the predicted wait passes `deadline`.
        """
        job = Job(lane, deadline, request_id)
        with self._changed:
            self._refuse_or_pass(lane, deadline)
            self._queue.add_job(job)
        return job

    def _refuse_or_pass(self, lane: Lane, deadline: float | None) -> None:
        if self._stopping:
            raise EngineClosedError("the server has stopped; send the request to another replica")
        wait = self._predicted_wait_seconds()
        if self._queue.audio_seconds + lane.window_seconds > self.limits.queue_audio_seconds:
            raise QueueFullError(f"the queue is full; the estimated wait is {wait:.1f} s", wait, "full")
        if len(self._queue.jobs) >= self.limits.requests:
            raise QueueFullError(f"{self.limits.requests} requests are already being answered", wait, "full")
        finish = wait + lane.cost.predict(1, lane.batch_windows)
        if deadline is not None and time.monotonic() + finish > deadline:
            raise QueueFullError(f"the estimated wait of {finish:.1f} s would pass the deadline", wait, "deadline")

    # One request's windows

    def room(self, outstanding: int) -> int:
        """How many more windows a request with `outstanding` unanswered ones may submit.

        A full queue leaves each request one window at a time, so that memory stays bounded and everybody advances.
        """
        with self._changed:
            full = self._queue.audio_seconds >= self.limits.queue_audio_seconds
        return max(0, (1 if full else self.limits.windows_in_flight) - outstanding)

    def submit(self, job: Job, waveform: np.ndarray) -> Future[ItemResult]:
        """Queues one window of waveform float32 (samples,), at most the lane's window long, and returns its future.

        Raises: ValueError for a wrong shape; EngineClosedError after `stop` or `release`.
        """
        if waveform.ndim != 1 or not 1 <= len(waveform) <= job.lane.window_samples:
            raise ValueError(f"a window holds 1 to {job.lane.window_samples} samples, not shape {waveform.shape}")
        item = Item(job, waveform, time.monotonic())
        with self._changed:
            if self._stopping or job not in self._queue.jobs:
                raise EngineClosedError("the server has stopped; send the request to another replica")
            self._queue.push(item)
            self._changed.notify_all()
        return item.future

    def release(self, job: Job) -> None:
        """Ends a request, answered or not: what still waits is cancelled, what is on the device runs on for nobody."""
        with self._changed:
            left = self._queue.remove_job(job)
            self._changed.notify_all()
        for item in left:
            item.future.cancel()

    # What waits

    def queued_windows(self, lane: Lane) -> int:
        """Windows of one lane waiting for the device."""
        return self._queue.waiting[lane]

    def predicted_wait_seconds(self) -> float:
        """When the device should be free, if nothing more came."""
        with self._changed:
            return self._predicted_wait_seconds()

    def _predicted_wait_seconds(self) -> float:
        if self._running is None:
            return self._queue.predicted_seconds
        lane, windows, started = self._running
        remaining = lane.cost.predict(windows, lane.batch_windows) - (time.monotonic() - started)
        return self._queue.predicted_seconds + max(0.0, remaining)

    # The worker

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                self._run(batch)

    def _next_batch(self) -> list[Item] | None:
        """Waits for work; an empty batch means that all who waited had left or were late, None means stop."""
        with self._changed:
            self._running = None
            self._changed.wait_for(lambda: self._queue or self._stopping)
            if self._stopping:
                return None
            batch, late = self._queue.take()
            if batch:
                self._running = (batch[0].job.lane, len(batch), time.monotonic())
        for item in late:
            item.future.set_exception(DeadlineError("the deadline passed while the request waited for the device"))
        return batch

    def _run(self, batch: list[Item]) -> None:
        """Runs one batch and answers its futures; a failure is its items' alone."""
        lane, started = batch[0].job.lane, time.monotonic()
        try:
            result = lane.run([item.waveform for item in batch])
        except Exception as error:
            log.exception("batch failed", model=lane.model, request_ids=[item.job.request_id for item in batch])
            _fail(batch, error)
            return
        lane.cost.observe(len(batch), time.monotonic() - started)
        self._batches += 1
        self._measure(batch, result, started)
        for item, logits in zip(batch, result.logits, strict=True):
            if np.isfinite(logits).all():
                timing = (started - item.submitted, result.features_seconds, result.inference_seconds)
                item.future.set_result(ItemResult(logits, *timing, self._batches))
            else:
                log.error("logits are not finite", model=lane.model, request_ids=[item.job.request_id])
                item.future.set_exception(InferenceFailedError("the logits are not finite"))

    def _measure(self, batch: list[Item], result: BatchResult, started: float) -> None:
        model, sample_rate, metrics = batch[0].job.lane.model, batch[0].job.lane.sample_rate, self._metrics
        for item in batch:
            metrics.stage_seconds.labels(model, "queue").observe(started - item.submitted)
        metrics.stage_seconds.labels(model, "features").observe(result.features_seconds)
        metrics.stage_seconds.labels(model, "inference").observe(result.inference_seconds)
        metrics.batch_windows.labels(model).observe(len(batch))
        metrics.windows.labels(model).inc(len(batch))
        metrics.audio_seconds.labels(model).inc(sum(len(item.waveform) for item in batch) / sample_rate)

    # The end

    def close_door(self) -> None:
        """Lets nobody pass `check_room` from now on."""
        with self._changed:
            self._accepting = False

    def stop(self, grace_seconds: float) -> bool:
        """Finishes what was admitted within `grace_seconds`, then cancels and ends the worker; True if all finished."""
        self.close_door()
        with self._changed:
            finished = self._changed.wait_for(lambda: not self._queue.jobs, grace_seconds)
            self._stopping = True
            left = [item for job in list(self._queue.jobs) for item in self._queue.remove_job(job)]
            self._changed.notify_all()
        for item in left:
            if item.future.set_running_or_notify_cancel():
                item.future.set_exception(EngineClosedError("the server stopped before the request was answered"))
        if self._worker.is_alive():
            self._worker.join(timeout=grace_seconds + 1)
        return finished


def _fail(batch: list[Item], cause: Exception) -> None:
    """Gives every item an error of its own, because a shared one would gather the tracebacks of all who raise it."""
    for item in batch:
        error = InferenceFailedError("the runtime failed on this batch")
        error.__cause__ = cause
        item.future.set_exception(error)
