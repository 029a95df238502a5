"""The batching engine: one bounded queue, one worker thread per batch that may run at a time, one future per item.

    admit ─► submit ─► this request's line ─┐                             ┌─► device 0: runtime.run ─► futures
    admit ─► submit ─► this request's line ─┴─► one item of each in turn ─┴─► device 1: runtime.run ─► futures

There is no batching timer: when a device is free it takes what waits, one item of each request in turn, so a short
clip never stands behind all the windows of a long one. The engine knows threads and futures, not HTTP or asyncio.
What it raises is in `engine_errors.py`, what a worker does with a batch in `worker.py`, whose turn it is in
`fair_queue.py`.
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from server.caution import Caution
from server.engine_errors import (
    DeadlineError,
    EngineClosedError,
    EngineError,
    InferenceFailedError,
    QueueFullError,
    WorkerStuckError,
)
from server.fair_queue import FairQueue, Item, ItemResult, Job, Priority
from server.lane import Lane
from server.metrics import Metrics
from server.worker import Running, Worker, fail_late, number_batches

__all__ = [
    "DeadlineError",
    "Engine",
    "EngineClosedError",
    "EngineError",
    "EngineLimits",
    "InferenceFailedError",
    "QueueFullError",
    "WorkerStuckError",
]

SOON_SECONDS = 0.25  # our choice: a body that takes longer is a slow upload, which nobody waits for


@dataclass(frozen=True)
class EngineLimits:
    """How much may wait at once: audio (windows counted whole), requests, and windows of any one request."""

    queue_audio_seconds: float
    requests: int
    windows_in_flight: int


@dataclass(frozen=True)
class Reception:
    """A request that was let in, and whose body is still coming."""

    lane: Lane
    priority: Priority
    began: float = field(default_factory=time.monotonic)

    @property
    def ends_soon(self) -> bool:
        """Whether it probably comes before an interactive newcomer."""
        return self.priority == "interactive" and time.monotonic() - self.began < SOON_SECONDS


class Engine:
    """The queue and its workers, one for each device of the served models; deadlines are `time.monotonic()` seconds."""

    def __init__(self, limits: EngineLimits, metrics: Metrics) -> None:
        self.limits = limits
        self._metrics = metrics
        self._queue = FairQueue()
        self._changed = threading.Condition()  # guards the queue, the workers and the flags below
        self._accepting = True
        self._stopping = False
        self._receiving: dict[object, Reception] = {}  # by the places of requests whose body is still coming
        self._batch_numbers = number_batches()
        self._workers: list[Worker] = []
        self._idle: set[Worker] = set()
        self._caution = Caution()

    def start(self) -> None:
        """Starts the first device's worker; others start when a model that has their devices is first asked."""
        with self._changed:
            self._start_workers(1)

    def _start_workers(self, count: int) -> None:
        while len(self._workers) < count:
            worker = Worker(len(self._workers), self._take, self._plan, self._metrics, self._batch_numbers)
            self._workers.append(worker)
            worker.start()

    @property
    def lost_device(self) -> str:
        """How a device was lost for as long as this process lives, in one sentence; empty while all is well."""
        return next((worker.lost for worker in list(self._workers) if worker.lost), "")

    def check_workers(self) -> None:
        """Raises: WorkerStuckError when a device is lost, or has not come back from a batch for far too long."""
        if self.lost_device:
            raise WorkerStuckError(self.lost_device)
        for worker in list(self._workers):
            running = worker.running
            if running is not None and running.is_stuck:
                seconds = time.monotonic() - running.started
                raise WorkerStuckError(f"device {worker.device} has been busy with one batch for {seconds:.0f} seconds")

    # The door

    def check_room(self, lane: Lane, deadline: float | None = None) -> None:
        """Refuses a request before its body is read.

        Raises: EngineClosedError when draining; WorkerStuckError; what `admit` would raise now.
        """
        self.check_workers()
        with self._changed:
            self._pass_door(lane, deadline)

    def begin_reception(
        self, lane: Lane, place: object, deadline: float | None = None, priority: Priority = "interactive"
    ) -> None:
        """Passes `check_room`, and holds a place among the requests while a body is received; `admit` takes it over.

        `place` is any object that is this request's alone.

        Raises: as `check_room`.
        """
        self.check_workers()
        with self._changed:
            self._pass_door(lane, deadline)
            self._receiving[place] = Reception(lane, priority)

    def end_reception(self, place: object) -> None:
        """Gives the place back, if the request still holds it."""
        with self._changed:
            self._receiving.pop(place, None)

    def admit(
        self,
        lane: Lane,
        deadline: float | None = None,
        request_id: str = "",
        priority: Priority = "interactive",
        place: object = None,
    ) -> Job:
        """Opens a request, with room reserved for its first window; later windows are never refused.

        Draining lets in who came before: a request is accepted at the door, and its body may take a while.

        Raises: EngineClosedError after `stop`; QueueFullError when the queue, or the number of requests, is at its
        limit or the predicted finish passes `deadline`; DeadlineError where it would on an idle server too.
        """
        with self._changed:
            self._receiving.pop(place, None)
            seconds = self._predict_or_refuse(lane, deadline, priority)
            job = Job(lane, deadline, request_id, priority, predicted_seconds=seconds)
            self._queue.add_job(job)
            self._start_workers(len(lane.runtimes))
        return job

    def _pass_door(self, lane: Lane, deadline: float | None) -> None:
        if not self._accepting:
            raise EngineClosedError("the server is shutting down; send the request to another replica")
        coming = [reception.lane for reception in self._receiving.values() if reception.ends_soon] if deadline else ()
        self._predict_or_refuse(lane, deadline, coming=coming)

    def _predict_or_refuse(
        self, lane: Lane, deadline: float | None, priority: Priority = "interactive", coming: Sequence[Lane] = ()
    ) -> float:
        """Seconds until a new request's first answer; `coming` has the lanes of who is about to be admitted before."""
        if self._stopping:
            raise EngineClosedError("the server has stopped; send the request to another replica")
        if self._queue.audio_seconds + lane.window_seconds > self.limits.queue_audio_seconds:
            wait = self._predicted_wait_seconds()
            raise QueueFullError(f"the queue is full; the estimated wait is {wait:.1f} s", wait, "full")
        if len(self._queue.jobs) + len(self._receiving) >= self.limits.requests:
            wait = self._predicted_wait_seconds()
            raise QueueFullError(f"{self.limits.requests} requests are already being answered", wait, "full")
        ahead = self._queue.seconds_before_newcomer(priority, coming)
        before = self._seconds_until_free(ahead, len(lane.runtimes))
        alone = lane.cost.predict(1, lane.batch_windows)
        if deadline is not None:
            self._refuse_the_hopeless(before, alone, deadline - time.monotonic())
        return before + alone

    def _refuse_the_hopeless(self, before: float, alone: float, seconds_left: float) -> None:
        """An idle engine lets the first one try, or after one slow batch it would refuse for ever and never learn."""
        if seconds_left <= 0:
            raise DeadlineError("the deadline passed before the request could begin")
        at_latest = self._caution.factor * (before + alone)
        if before > 0 and at_latest > seconds_left:
            if alone > seconds_left:
                raise DeadlineError(f"the model needs about {alone:.2f} s, and the deadline is in {seconds_left:.2f} s")
            sentence = f"the estimated wait of {at_latest:.1f} s would pass the deadline"
            raise QueueFullError(sentence, at_latest - seconds_left, "deadline")

    # One request's windows

    def room(self, outstanding: int) -> int:
        """How many more windows a request with `outstanding` unanswered ones may submit.

        A full queue leaves each request one window at a time, so that memory stays bounded and everybody advances.
        """
        with self._changed:
            full = self._queue.audio_seconds >= self.limits.queue_audio_seconds
        return max(0, (1 if full else self.limits.windows_in_flight) - outstanding)

    def submit(self, job: Job, waveform: np.ndarray) -> Future[ItemResult]:
        """Queues one window and returns its future; raises as `submit_all`."""
        return self.submit_all(job, [waveform])[0]

    def submit_all(self, job: Job, waveforms: Sequence[np.ndarray]) -> list[Future[ItemResult]]:
        """Queues windows of waveform float32 (samples,), each at most the lane's window long; returns their futures.

        They come in at one moment, so that an idle device takes them as one batch and not the first of them alone.

        Raises: ValueError for a wrong shape; EngineClosedError after `stop` or `release`.
        """
        for waveform in waveforms:
            if waveform.ndim != 1 or not 1 <= len(waveform) <= job.lane.window_samples:
                raise ValueError(f"a window holds 1 to {job.lane.window_samples} samples, not shape {waveform.shape}")
        items = [Item(job, waveform, time.monotonic()) for waveform in waveforms]
        with self._changed:
            if self._stopping or job not in self._queue.jobs:
                raise EngineClosedError("the server has stopped; send the request to another replica")
            if job.reserves and items:
                items[0].future.add_done_callback(partial(self._learn, job))
            for item in items:
                self._queue.push(item)
            self._changed.notify_all()
        return [item.future for item in items]

    def _learn(self, job: Job, answer: Future[ItemResult]) -> None:
        """Compares a request's first answer with what had been predicted at the door."""
        if not answer.cancelled():
            self._caution.observe(job.predicted_seconds, time.monotonic() - job.admitted)

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
        """When the devices should be free, if nothing more came."""
        with self._changed:
            return self._predicted_wait_seconds()

    def _predicted_wait_seconds(self) -> float:
        return self._seconds_until_free(self._queue.predicted_seconds, max(1, len(self._workers)))

    def _seconds_until_free(self, ahead: float, workers: int) -> float:
        """Until the first of so many workers is free, and they have shared out what is `ahead`."""
        running = [worker.running for worker in self._workers[:workers]]
        return ahead / workers + min((batch.remaining_seconds if batch else 0.0 for batch in running), default=0.0)

    # What the workers ask

    def _take(self, worker: Worker) -> list[Item] | None:
        """Waits for work; an empty batch means that all who waited had left or were late, None means stop."""
        with self._changed:
            worker.running = None
            self._idle.add(worker)
            self._changed.wait_for(lambda: self._stopping or self._has_turn(worker))
            if self._stopping:
                return None
            batch, late = self._queue.take(worker.device, partial(self._room_in_batch, worker.device))
            self._idle.discard(worker)
            if batch:
                lane = batch[0].job.lane
                worker.running = Running(lane, len(batch), time.monotonic(), self._batches_beside(lane))
            self._changed.notify_all()  # whoever comes after this worker may look now
        fail_late(late)
        return batch

    def _has_turn(self, worker: Worker) -> bool:
        """Whether there is work for this worker, and no idle one before it.

        So a batch alone on a CPU is always the first worker's, and only that one needs threads of its own on all cores.
        """
        first = min(self._idle, key=lambda idle: idle.device)
        return worker is first and self._queue.has_work(worker.device)

    def _batches_beside(self, lane: Lane) -> int:
        """How many batches will run in a moment: a new one, those that do, and what idle workers find waiting."""
        busy = sum(worker.running is not None for worker in self._workers)
        joining = min(len(self._idle), len(lane.runtimes) - 1 - busy, self._queue.waiting[lane])
        return 1 + busy + max(0, joining)

    def _plan(self, worker: Worker) -> list[Item]:
        with self._changed:
            return self._queue.plan(worker.device, partial(self._most_windows, worker.device))

    def _room_in_batch(self, device: int, lane: Lane) -> int:
        """The most that a batch may hold now, or its share of what waits where other devices or cores are idle too.

        Cores share only where they have processes of their own. Measured with aum-tiny on two of them: a clip of two
        windows is answered after 26 and 22 ms, and after 31 and 28 as one batch on both; in one process halves took 34
        instead of 28.
        """
        idle = len(self._idle) - lane.runtime.ready_batches  # without those workers that only make ready
        share = -(-self._queue.waiting[lane] // max(1, min(idle, lane.independent_batches)))
        return min(self._most_windows(device, lane), max(1, share))

    def _most_windows(self, device: int, lane: Lane) -> int:
        return lane.most_windows(device, self._queue.requests_before_newcomer(lane))

    # The end

    def close_door(self) -> None:
        """Lets nobody pass `check_room` from now on."""
        with self._changed:
            self._accepting = False

    def stop(self, grace_seconds: float) -> bool:
        """Finishes what was admitted within `grace_seconds`, then cancels, ends the workers; True if all finished."""
        self.close_door()
        with self._changed:
            finished = self._changed.wait_for(lambda: not self._queue.jobs, grace_seconds)
            self._stopping = True
            left = [item for job in list(self._queue.jobs) for item in self._queue.remove_job(job)]
            self._changed.notify_all()
        for item in left:
            if item.future.set_running_or_notify_cancel():
                item.future.set_exception(EngineClosedError("the server stopped before the request was answered"))
        joined_by = time.monotonic() + grace_seconds + 1
        for worker in self._workers:
            worker.join(max(0.0, joined_by - time.monotonic()))
        return finished
