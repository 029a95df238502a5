"""The engine's queue: a line of items per request, from which batches take one item of each request in turn.

Plain data, no lock: the engine holds its own around every call.
"""

import time
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from server.lane import Lane


@dataclass(frozen=True)
class ItemResult:
    """Logits float32 (C,) of one window, and where its time went; `batch` tells which items shared a runtime call."""

    logits: np.ndarray
    queue_seconds: float
    features_seconds: float
    inference_seconds: float
    batch: int


@dataclass(frozen=True, eq=False)
class Item:
    """One window of waveform float32 (samples,), the request it belongs to and the future of its result."""

    job: "Job"
    waveform: np.ndarray
    submitted: float
    future: Future[ItemResult] = field(default_factory=Future)

    @property
    def is_late(self) -> bool:
        return self.job.deadline is not None and time.monotonic() > self.job.deadline


@dataclass(eq=False)
class Job:
    """One admitted request and its items waiting in line, all of one lane; `deadline` is a `time.monotonic()`."""

    lane: Lane
    deadline: float | None
    request_id: str
    waiting: deque[Item] = field(default_factory=deque)
    reserves: bool = True  # room for the first window, held until that window comes


class FairQueue:
    """The admitted requests and their waiting items."""

    def __init__(self) -> None:
        self.jobs: set[Job] = set()
        self.waiting: Counter[Lane] = Counter()
        self._reserved: Counter[Lane] = Counter()
        self._turns: deque[Job] = deque()  # requests with waiting items; the leftmost has the next turn

    def __bool__(self) -> bool:
        return bool(self._turns)

    @property
    def audio_seconds(self) -> float:
        """Audio that waits, windows counted whole, the reserved ones included."""
        return sum((self.waiting[lane] + self._reserved[lane]) * lane.window_seconds for lane in self._lanes)

    @property
    def predicted_seconds(self) -> float:
        """How long the device should need for all of it."""
        counts = {lane: self.waiting[lane] + self._reserved[lane] for lane in self._lanes}
        return sum(lane.cost.predict(count, lane.batch_windows) for lane, count in counts.items())

    @property
    def _lanes(self) -> set[Lane]:
        return self.waiting.keys() | self._reserved.keys()

    def add_job(self, job: Job) -> None:
        """Takes in a request and reserves room for its first window."""
        self.jobs.add(job)
        self._reserved[job.lane] += 1

    def push(self, item: Item) -> None:
        """Puts an item at the end of its request's line."""
        job = item.job
        self._end_reservation(job)
        if not job.waiting:
            self._turns.append(job)
        job.waiting.append(item)
        self.waiting[job.lane] += 1

    def take(self) -> tuple[list[Item], list[Item]]:
        """Takes a batch, all of one lane, one item of each request in turn; and, apart, the items that are late.

        Items whose caller left are dropped on the way.
        """
        batch: list[Item] = []
        late: list[Item] = []
        passed_over: list[Job] = []  # requests of other lanes keep their place at the head of the line
        while self._turns and (not batch or len(batch) < batch[0].job.lane.batch_windows):
            job = self._turns.popleft()
            if batch and job.lane is not batch[0].job.lane:
                passed_over.append(job)
                continue
            item = job.waiting.popleft()
            self.waiting[job.lane] -= 1
            if job.waiting:
                self._turns.append(job)
            if item.future.set_running_or_notify_cancel():
                (late if item.is_late else batch).append(item)
        self._turns.extendleft(reversed(passed_over))
        return batch, late

    def remove_job(self, job: Job) -> list[Item]:
        """Forgets a request and returns the items that still waited."""
        self.jobs.discard(job)
        self._end_reservation(job)
        left = list(job.waiting)
        if left:
            self._turns.remove(job)
            self.waiting[job.lane] -= len(left)
            job.waiting.clear()
        return left

    def _end_reservation(self, job: Job) -> None:
        if job.reserves:
            self._reserved[job.lane] -= 1
            job.reserves = False
