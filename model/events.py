r"""Window scores to events: where in the sound a label is heard. One tracker serves files, uploads and live streams.

How windows become an event, for one class with enter = 0.5 and leave = 0.35:

    window scores     .1    .4    .7    .9    .4    .6    .2          windows side by side
    event                        |======================|             from the first score >= enter
                                                                      to the last before one < leave
Overlapping windows (here each twice its hop) hear the same moment more than once. A quiet neighbour says that the sound
is not in what it shares with the event's windows, so its part is cut off; what remains lies between window edges:

    .1   |-----------|                                                quiet
    .8         |-----------|
    .9               |-----------|
    .7                     |-----------|
    .2                           |-----------|                        quiet
    event            |===========|                                    quiet neighbours' parts are cut off

Where nothing would remain, the quiet neighbours contradict the loud windows, and the event is what all of those share:

    .1   |-----------|                                                quiet
    .9         |-----------|
    .2               |-----------|                                    quiet
    event      |===========|
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from model.labels import Label, LabelSet

Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Event:
    """A stretch of the clip in which a label is heard; `score` is the highest of its windows.

    `channel` counts from 0 where channels were tagged one by one, and is None where they were mixed.
    """

    mid: str
    label: str
    start_seconds: float
    end_seconds: float
    score: float
    channel: int | None = None


@dataclass(frozen=True)
class EventStart:
    """An event that has begun and not yet ended; `score` is that of the window in which it entered."""

    mid: str
    label: str
    start_seconds: float
    score: float


@dataclass(frozen=True)
class EventRules:
    """When a label begins and ends, and which events are kept.

    An event begins with a score of at least `enter` and lasts while scores stay at `leave` or above. Events of a label
    that lie at most `gap_seconds` apart become one; then those shorter than `minimum_seconds` are dropped. `per_class`
    gives labels (by mid) their own enter threshold; their leave threshold keeps the proportion of `leave` to `enter`.

    Raises: ValueError when a threshold is outside [0, 1], leave is above enter, or a duration is negative.
    """

    enter: float = 0.5
    leave: float = 0.35
    minimum_seconds: float = 0.0
    gap_seconds: float = 0.5
    per_class: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        thresholds = {"enter": self.enter, "leave": self.leave}
        thresholds |= {f"The enter threshold of {mid}": enter for mid, enter in self.per_class.items()}
        for name, value in thresholds.items():
            check_threshold(name, value)
        if self.leave > self.enter:
            raise ValueError(f"leave must not be above enter, but {self.leave} is above {self.enter}.")
        for name in ("minimum_seconds", "gap_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a number of seconds from 0 on, not {getattr(self, name)!r}.")

    @property
    def least_enter(self) -> float:
        """No label enters below this."""
        return float(min((self.enter, *self.per_class.values())))

    def thresholds(self, mid: str) -> tuple[float, float]:
        """Return the (enter, leave) thresholds of one label."""
        enter = self.per_class.get(mid, self.enter)
        return enter, (enter * self.leave / self.enter if self.enter else 0.0)


@dataclass
class _Run:
    """The windows of one label since it entered: those that are loud, and those quieter ones that do not leave."""

    start: float  # where the quiet window before it ends, else where its first window starts
    first: tuple[float, float]
    announced: bool


class EventTracker:
    """Follows window after window of one sound and gives each event once, as soon as no later window can change it.

    An event is settled when its label has been quiet for `rules.gap_seconds`; until then a new one would be its
    continuation. What is held does not grow with the sound.
    """

    def __init__(self, labels: Sequence[Label], rules: EventRules) -> None:
        self._labels = labels
        self._rules = rules
        thresholds = np.array([rules.thresholds(label.mid) for label in labels]).reshape(-1, 2)
        self._enter, self._leave = thresholds.T
        self._peaks = np.zeros(len(labels))
        self._open = np.zeros(len(labels), bool)
        self._quiet = np.zeros(len(labels), bool)  # in the window before; nothing is known before the first
        self._span = (-np.inf, -np.inf)
        self._runs: dict[int, _Run] = {}
        self._pending: dict[int, Event] = {}  # ended, but what follows may still belong to it
        self._news: list[EventStart | Event] = []

    def push(self, start: float, end: float, scores: np.ndarray) -> list[EventStart | Event]:
        """Takes the next window, its place in seconds and its scores (C,); gives what has begun and what is settled.

        A label's events never mix: each begins, then is settled, before its next one begins.

        Raises: ValueError when the window is empty or does not follow the one before it, or a score is not a number.
        """
        self._check(start, end, scores)
        quiet = scores < self._leave.astype(scores.dtype)
        loud = scores >= self._enter.astype(scores.dtype)
        for index in np.flatnonzero(self._open & quiet):
            self._close(int(index), start)
        entered = loud & ~self._open
        self._peaks[entered] = scores[entered]
        for index in np.flatnonzero(entered):
            self._begin(int(index), (start, end))
        self._open = (self._open & ~quiet) | loud
        np.maximum(self._peaks, scores, out=self._peaks, where=self._open)
        self._quiet, self._span = quiet, (start, end)
        for waiting in list(self._pending):
            self._settle(waiting)
        return self._take()

    def finish(self) -> list[EventStart | Event]:
        """Gives the events that were still open, or not settled, when the sound ended."""
        for index in np.flatnonzero(self._open):
            self._close(int(index), np.inf)
        for waiting in list(self._pending):
            self._emit(self._pending.pop(waiting))
        self._open[:] = False
        return self._take()

    def _check(self, start: float, end: float, scores: np.ndarray) -> None:
        if scores.shape != (len(self._labels),):
            raise ValueError(f"Scores of shape {scores.shape} do not fit {len(self._labels)} labels.")
        if np.isnan(scores).any():
            raise ValueError("Scores must be numbers, but there is a NaN among them.")
        if not (start < end and self._span[0] < start and self._span[1] < end):
            raise ValueError(f"A window, {start} to {end} seconds, is empty or does not follow the one before it.")

    def _begin(self, index: int, span: tuple[float, float]) -> None:
        start = max(span[0], self._span[1]) if self._quiet[index] else span[0]
        self._runs[index] = _Run(start, span, announced=False)
        if index not in self._pending:
            self._announce(index)

    def _close(self, index: int, next_start: float) -> None:
        """Ends a run with the window before; `next_start` is where the quiet window after it starts."""
        run, label = self._runs[index], self._labels[index]
        start, end = run.start, min(self._span[1], next_start)
        if not start < end:
            start, end = self._span[0], run.first[1]
        event = Event(label.mid, label.name, start, end, float(self._peaks[index]))
        before = self._pending.pop(index, None)
        if before is not None and start - before.end_seconds <= self._rules.gap_seconds:
            event = _join(before, event)
        elif before is not None:
            self._emit(before)
            self._announce(index)
        del self._runs[index]
        self._pending[index] = event

    def _settle(self, index: int) -> None:
        """Emits an ended event that nothing can continue any more."""
        if not self._may_continue(index):
            self._emit(self._pending.pop(index))
            if index in self._runs:
                self._announce(index)

    def _may_continue(self, index: int) -> bool:
        """Whether a later start of the label can still lie within the gap; the next window starts after this one."""
        ended = self._pending[index].end_seconds
        run = self._runs.get(index)
        if run is None:
            return self._span[0] - ended < self._rules.gap_seconds
        earliest = run.start if self._span[0] > run.start else run.first[0]
        return earliest - ended <= self._rules.gap_seconds

    def _announce(self, index: int) -> None:
        run, label = self._runs[index], self._labels[index]
        if not run.announced:
            run.announced = True
            self._news.append(EventStart(label.mid, label.name, run.start, float(self._peaks[index])))

    def _emit(self, event: Event) -> None:
        if event.end_seconds - event.start_seconds >= self._rules.minimum_seconds:
            self._news.append(event)

    def _take(self) -> list[EventStart | Event]:
        news, self._news = self._news, []
        return news


def find_events(window_scores: np.ndarray, spans: Spans, labels: LabelSet, rules: EventRules) -> tuple[Event, ...]:
    """Join windows with scores (W, C) into events, by start and then by score; the module draws the rule.

    `spans` are the windows' (start, end) in seconds, both rising from window to window; they may overlap.

    Raises: ValueError when scores, spans and labels do not fit together, a score is not a number, or spans are out of
    order.
    """
    check_scores(window_scores, labels)
    if len(spans) != len(window_scores):
        raise ValueError(f"There are {len(window_scores)} windows of scores but {len(spans)} spans.")
    peaks = window_scores.max(axis=0, initial=-np.inf)
    likely = map(labels.__getitem__, np.flatnonzero(peaks >= rules.least_enter).tolist())  # few of hundreds
    heard = [label for label in likely if peaks[label.index] >= rules.thresholds(label.mid)[0]]
    tracker = EventTracker(heard, rules)
    columns = window_scores[:, [label.index for label in heard]]
    news: list[EventStart | Event] = []
    for (start, end), scores in zip(spans, columns, strict=True):
        news += tracker.push(start, end, scores)
    events = [event for event in [*news, *tracker.finish()] if isinstance(event, Event)]
    return tuple(sorted(events, key=lambda event: (event.start_seconds, -event.score)))


def check_threshold(name: str, value: float) -> None:
    """Raises: ValueError unless 0 <= value <= 1."""
    if not 0 <= value <= 1:  # catches NaN too
        raise ValueError(f"{name} must be between 0 and 1, not {value!r}.")


def check_scores(window_scores: np.ndarray, labels: LabelSet) -> None:
    """Raises: ValueError unless there is a row of scores (W, C), all numbers, with one per label."""
    if window_scores.ndim != 2 or window_scores.shape[1] != len(labels):
        raise ValueError(f"Scores of shape {window_scores.shape} do not fit {len(labels)} labels.")
    if np.isnan(window_scores).any():
        raise ValueError("Scores must be numbers, but there is a NaN among them.")


def _join(before: Event, event: Event) -> Event:
    return replace(
        before,
        start_seconds=min(before.start_seconds, event.start_seconds),
        end_seconds=max(before.end_seconds, event.end_seconds),
        score=max(before.score, event.score),
    )
