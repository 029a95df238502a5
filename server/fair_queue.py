"""The engine's queue: a line of items per request, from which batches take one item of each request in turn.

    interactive   A1 A2 A3 ┐
                  B1       ├─► A1 B1 A2 A3 | C1 D1 C2 ...      one lane per batch; batch-priority requests behind
    batch         C1 C2    │
                  D1       ┘

A batch-priority request that had no turn for `BATCH_AGEING_SECONDS` joins the interactive ones for one turn, so that it
advances however many of them there are.

On most CPUs a batch of two windows takes nearly as long as two batches. Where the cost model says so, a batch is kept
short for those who wait for it: batch-priority items do not fill it up, and every other batch is for newcomers alone,
requests that had no turn yet, if there are any. A short clip beside a long upload so waits for the batch that runs, and
not for the upload's next window too.

Plain data, no lock: the engine holds its own around every call.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Literal

import numpy as np

from server.lane import Lane

Priority = Literal["interactive", "batch"]

BATCH_AGEING_SECONDS = 2.0


@dataclass(frozen=True)
class ItemResult:
    """Logits float32 (C,) and embedding float32 (D,) of one window, and where its time went.

    `batch` tells which items shared a runtime call.
    """

    logits: np.ndarray
    embedding: np.ndarray
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


@dataclass(eq=False)
class Job:
    """One admitted request and its items waiting in line, all of one lane; `deadline` is a `time.monotonic()`."""

    lane: Lane
    deadline: float | None
    request_id: str
    priority: Priority = "interactive"
    waiting: deque[Item] = field(default_factory=deque)
    reserves: bool = True  # room for the first window, held until that window comes
    last_turn: float = 0.0  # when it last had a turn, or began to wait for one
    is_newcomer: bool = True  # until its first turn
    admitted: float = field(default_factory=time.monotonic)
    predicted_seconds: float = 0.0  # until its first answer, as it seemed when it was admitted

    @property
    def is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline


class FairQueue:
    """The admitted requests and their waiting items."""

    def __init__(self) -> None:
        self.jobs: set[Job] = set()
        # Windows by lane. At 0 `-=` forgets the lane, and with it the memory of a model that is served no more.
        self.waiting: Counter[Lane] = Counter()
        self._reserved: dict[Priority, Counter[Lane]] = {"interactive": Counter(), "batch": Counter()}
        # Requests with waiting items; the leftmost of each has the next turn.
        self._turns: dict[Priority, deque[Job]] = {"interactive": deque(), "batch": deque()}
        self._in_line: dict[Priority, Counter[Lane]] = {"interactive": Counter(), "batch": Counter()}  # their number
        self._newcomers_first = True  # alternates, so that those who wait longer are never passed over twice

    @property
    def audio_seconds(self) -> float:
        """Audio that waits, windows counted whole, the reserved ones included."""
        counts = (self.waiting, *self._reserved.values())
        return sum(count * lane.window_seconds for lanes in counts for lane, count in lanes.items())

    @property
    def predicted_seconds(self) -> float:
        """How long one device should need for all of it."""
        return _predict(self.waiting, *self._reserved.values())

    def seconds_before_newcomer(self, priority: Priority, coming: Iterable[Lane] = ()) -> float:
        """How long one device should need for what comes before a new request's first window.

        That is one window of every interactive request; for batch priority all of theirs, and one of every other.
        `coming` has the lane of each that is about to be admitted before it.
        """
        counts = [self._in_line[priority], self._reserved[priority], Counter(coming)]
        if priority == "batch":
            interactive: Counter[Lane] = Counter()
            for job in self._turns["interactive"]:
                interactive[job.lane] += len(job.waiting) if job.priority == "interactive" else 1  # its one turn there
            counts += interactive, self._reserved["interactive"]
        return _predict(*counts)

    def requests_before_newcomer(self, lane: Lane) -> int:
        """How many requests of a lane have a turn before a new interactive one."""
        return self._in_line["interactive"][lane]

    def has_work(self, device: int) -> bool:
        """Whether anything waits that this device can run."""
        return any(self._may_run(device, job.lane) for job in self._in_order())

    def add_job(self, job: Job) -> None:
        """Takes in a request and reserves room for its first window."""
        self.jobs.add(job)
        self._reserved[job.priority][job.lane] += 1

    def push(self, item: Item) -> None:
        """Puts an item at the end of its request's line."""
        job = item.job
        self._end_reservation(job)
        if not job.waiting:
            self._join_line(job, job.priority)
            job.last_turn = item.submitted
        job.waiting.append(item)
        self.waiting[job.lane] += 1

    def plan(self, device: int, room: Callable[[Lane], int]) -> list[Item]:
        """What a batch on this device would hold now, at most `room(lane)` items of one lane; takes nothing."""
        self._promote_aged()
        first = next((job for job in self._in_order() if self._may_run(device, job.lane)), None)
        if first is None:
            return []
        lane, windows = first.lane, room(first.lane)
        lines = [[*islice(_of(lane, turns), windows)] for turns in self._turns.values()]  # more have no turn in it
        items: Iterator[Item] = chain(_in_turn(lines[0], once=True), _in_turn(lines[1]))
        if lane.cost.is_linear and lines[0]:
            newcomers = (job for job in _of(lane, self._turns["interactive"]) if job.is_newcomer)
            favoured = [*islice(newcomers, windows)] if self._newcomers_first else []
            items = _in_turn(favoured or lines[0], once=True)
        return list(islice(items, windows))

    def take(self, device: int, room: Callable[[Lane], int]) -> tuple[list[Item], list[Item]]:
        """Takes the planned batch; and, apart, items found late as their turn came. Whose caller left is dropped."""
        batch: list[Item] = []
        late: list[Item] = []
        planned = self.plan(device, room)
        while useless := {item.job for item in planned if item.job.is_late or item.future.cancelled()}:
            for job in useless:
                late += self._sweep(job)
            planned = self.plan(device, room)
        self._newcomers_first = not self._passes_over(planned)
        for item in planned:
            self._remove_first(item)
            item.job.is_newcomer = False
            if item.future.set_running_or_notify_cancel():
                batch.append(item)
        return batch, late

    def remove_job(self, job: Job) -> list[Item]:
        """Forgets a request and returns the items that still waited."""
        self.jobs.discard(job)
        self._end_reservation(job)
        left = list(job.waiting)
        if left:
            self._leave_line(job)
            self.waiting -= Counter({job.lane: len(left)})
            job.waiting.clear()
        return left

    def _may_run(self, device: int, lane: Lane) -> bool:
        """Whether a worker may take this lane's windows; for one that only makes ready there must be a crowd.

        Where few wait, a batch that lies ready gains little, and a newcomer would wait for it too.
        """
        if device < lane.running_batches:
            return True
        crowd = len(lane.runtimes)
        return device < crowd == len([*islice(_of(lane, self._in_order()), crowd)])

    def _in_order(self) -> Iterator[Job]:
        return chain(*self._turns.values())

    def _passes_over(self, planned: list[Item]) -> bool:
        """Whether newcomers alone are taken while others of their lane wait longer."""
        if not all(item.job.is_newcomer for item in planned):
            return False
        lanes = {item.job.lane for item in planned}
        return any(job.lane in lanes and not job.is_newcomer for job in self._turns["interactive"])

    def _sweep(self, job: Job) -> list[Item]:
        """Takes out what nobody can use any more, and returns what is late, whose caller is to be told."""
        is_late = job.is_late
        useless = [item for item in job.waiting if is_late or item.future.cancelled()]
        for item in useless:
            job.waiting.remove(item)
        self.waiting -= Counter({job.lane: len(useless)})
        if not job.waiting:
            self._leave_line(job)
        return [item for item in useless if item.future.set_running_or_notify_cancel()]

    def _promote_aged(self) -> None:
        """Gives a turn among the interactive requests to those that had none for long; the longest wait is leftmost."""
        line, now = self._turns["batch"], time.monotonic()
        while line and now - line[0].last_turn > BATCH_AGEING_SECONDS:
            aged = line[0]
            self._leave_line(aged)
            self._join_line(aged, "interactive")

    def _remove_first(self, item: Item) -> None:
        """Takes an item from the head of its request's line; the request goes to the end of its priority's turns."""
        job = item.job
        job.waiting.remove(item)  # the first
        self.waiting -= Counter({job.lane: 1})
        self._leave_line(job)
        if job.waiting:
            self._join_line(job, job.priority)
            job.last_turn = time.monotonic()

    def _join_line(self, job: Job, priority: Priority) -> None:
        self._turns[priority].append(job)
        self._in_line[priority][job.lane] += 1

    def _leave_line(self, job: Job) -> None:
        for priority, turns in self._turns.items():
            if job in turns:
                turns.remove(job)
                self._in_line[priority] -= Counter({job.lane: 1})

    def _end_reservation(self, job: Job) -> None:
        if job.reserves:
            self._reserved[job.priority] -= Counter({job.lane: 1})
            job.reserves = False


def _of(lane: Lane, jobs: Iterable[Job]) -> Iterator[Job]:
    return (job for job in jobs if job.lane is lane)


def _in_turn(jobs: Sequence[Job], once: bool = False) -> Iterator[Item]:
    """One item of each request, then the next of each, and so on; `once` leaves promoted ones a single turn."""
    for turn in range(max((len(job.waiting) for job in jobs), default=0)):
        for job in jobs:
            if turn < len(job.waiting) and not (once and turn and job.priority == "batch"):
                yield job.waiting[turn]


def _predict(*counts: Counter[Lane]) -> float:
    """Seconds that all these windows take one device, each lane's in batches together."""
    lanes = set[Lane]().union(*counts)
    return sum((lane.cost.predict(sum(count[lane] for count in counts), lane.batch_windows) for lane in lanes), 0.0)
