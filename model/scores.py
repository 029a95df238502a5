r"""Logits to scores, and scores to what a listener wants to read: the clip's labels, each window's labels, and events.

How windows become an event (`find_events`), for one class with enter = 0.5 and leave = 0.35:

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
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from model.labels import Label, LabelSet
from model.rollup import roll_up

Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class ScoredLabel:
    """A label and its score, in [0, 1] for sigmoid and softmax."""

    mid: str
    label: str
    score: float


@dataclass(frozen=True)
class WindowTags:
    """The labels of one window, best first."""

    start_seconds: float
    end_seconds: float
    labels: tuple[ScoredLabel, ...]


@dataclass(frozen=True)
class Event:
    """A stretch of the clip in which a label is heard; `score` is the highest of its windows."""

    mid: str
    label: str
    start_seconds: float
    end_seconds: float
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
            _check_threshold(name, value)
        if self.leave > self.enter:
            raise ValueError(f"leave must not be above enter, but {self.leave} is above {self.enter}.")
        for name in ("minimum_seconds", "gap_seconds"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a number of seconds from 0 on, not {getattr(self, name)!r}.")

    def thresholds(self, mid: str) -> tuple[float, float]:
        """Return the (enter, leave) thresholds of one label."""
        enter = self.per_class.get(mid, self.enter)
        return enter, (enter * self.leave / self.enter if self.enter else 0.0)


@dataclass(frozen=True)
class TagOptions:
    """What a caller asks to read: at most `top_k` labels scoring at least `threshold`, with or without roll-up.

    Raises: ValueError when top_k is not at least 1 or threshold is outside [0, 1].
    """

    top_k: int = 5
    threshold: float = 0.0
    rollup: bool = False
    rules: EventRules = field(default_factory=EventRules)

    def __post_init__(self) -> None:
        _check_top_k(self.top_k)
        _check_threshold("threshold", self.threshold)


def summarise(
    window_scores: np.ndarray, spans: Spans, labels: LabelSet, options: TagOptions
) -> tuple[tuple[ScoredLabel, ...], tuple[WindowTags, ...], tuple[Event, ...]]:
    """Turn scores (W, C) of windows at `spans` (start and end in seconds) into the clip's labels, windows and events.

    Raises: ValueError when scores, spans and labels do not fit together or a score is not a number.
    """
    if options.rollup:
        window_scores, labels = roll_up(window_scores, labels)
    events = find_events(window_scores, spans, labels, options.rules)
    windows = tuple(
        WindowTags(start, end, top_labels(scores, labels, options.top_k, options.threshold))
        for (start, end), scores in zip(spans, window_scores, strict=True)
    )
    return top_labels(clip_scores(window_scores), labels, options.top_k, options.threshold), windows, events


def logits_to_scores(logits: np.ndarray, activation: Literal["sigmoid", "softmax", "none"]) -> np.ndarray:
    """Turn logits (W, C) into scores (W, C) float32: each class by itself, or sharing 1 (softmax), or unchanged.

    Raises: ValueError when the activation is unknown or a logit is not finite.
    """
    logits = np.asarray(logits, dtype=np.float32)
    if not np.isfinite(logits).all():
        raise ValueError("Logits must be finite numbers.")
    if activation == "none":
        return logits
    if activation == "sigmoid":
        small = np.exp(-np.abs(logits))  # never overflows
        return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))
    if activation == "softmax":
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)
    raise ValueError(f"Activation must be sigmoid, softmax or none, not {activation!r}.")


def clip_scores(window_scores: np.ndarray) -> np.ndarray:
    """Return each class's highest score over the windows: (W, C) -> (C,).

    Raises: ValueError when there is no window.
    """
    if window_scores.ndim != 2 or len(window_scores) == 0:
        raise ValueError(f"Scores must have shape (windows, classes) with a window, not {window_scores.shape}.")
    return window_scores.max(axis=0)


def top_labels(scores: np.ndarray, labels: LabelSet, top_k: int, threshold: float) -> tuple[ScoredLabel, ...]:
    """Return at most `top_k` labels whose scores (C,) are at least `threshold`, best first, ties in label order.

    Raises: ValueError when top_k is not at least 1, threshold is outside [0, 1], or the scores are not one number per
    label.
    """
    _check_top_k(top_k)
    _check_threshold("threshold", threshold)
    _check_scores(scores[None], labels)
    best = np.argsort(-scores, kind="stable")[:top_k]
    return tuple(
        ScoredLabel(labels[int(i)].mid, labels[int(i)].name, float(scores[i])) for i in best if scores[i] >= threshold
    )


def find_events(window_scores: np.ndarray, spans: Spans, labels: LabelSet, rules: EventRules) -> tuple[Event, ...]:
    """Join windows with scores (W, C) into events, by start and then by score; the module draws the rule.

    `spans` are the windows' (start, end) in seconds, both rising from window to window; they may overlap.

    Raises: ValueError when scores, spans and labels do not fit together, a score is not a number, or spans are out of
    order.
    """
    _check_scores(window_scores, labels)
    _check_spans(spans, len(window_scores))
    events: list[Event] = []
    peaks = window_scores.max(axis=0, initial=-np.inf)
    for label, peak in zip(labels, peaks, strict=True):
        if peak >= rules.thresholds(label.mid)[0]:
            events += _label_events(window_scores[:, label.index], spans, label, rules)
    return tuple(sorted(events, key=lambda event: (event.start_seconds, -event.score)))


def _label_events(scores: np.ndarray, spans: Spans, label: Label, rules: EventRules) -> list[Event]:
    """Find one label's events from its scores (W,)."""
    events: list[Event] = []
    enter, leave = rules.thresholds(label.mid)
    for first, last in _loud_runs(scores, enter, leave):
        start, end = _locate(first, last, scores, spans, leave)
        peak = float(scores[first : last + 1].max())
        if events and start - events[-1].end_seconds <= rules.gap_seconds:
            previous = events.pop()
            start, end = min(start, previous.start_seconds), max(end, previous.end_seconds)
            peak = max(peak, previous.score)
        events.append(Event(label.mid, label.name, start, end, peak))
    return [event for event in events if event.end_seconds - event.start_seconds >= rules.minimum_seconds]


def _loud_runs(scores: np.ndarray, enter: float, leave: float) -> list[tuple[int, int]]:
    """Return (first, last) window of each run that begins at `enter` and stays at `leave` or above."""
    changes = np.diff(np.concatenate(([0], (scores >= leave).astype(np.int8), [0])))
    runs = []
    for begin, stop in zip(np.flatnonzero(changes == 1), np.flatnonzero(changes == -1), strict=True):
        if (entered := np.flatnonzero(scores[begin:stop] >= enter)).size:
            runs.append((int(begin + entered[0]), int(stop - 1)))
    return runs


def _locate(first: int, last: int, scores: np.ndarray, spans: Spans, leave: float) -> tuple[float, float]:
    """Return where in seconds the sound of windows first..last is, given their quiet neighbours."""
    start, end = spans[first][0], spans[last][1]
    if first > 0 and scores[first - 1] < leave:
        start = max(start, spans[first - 1][1])
    if last + 1 < len(spans):
        end = min(end, spans[last + 1][0])
    if start < end:
        return start, end
    return spans[last][0], spans[first][1]


def _check_top_k(top_k: int) -> None:
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
        raise ValueError(f"top_k must be a whole number of at least 1, not {top_k!r}.")


def _check_threshold(name: str, value: float) -> None:
    if not 0 <= value <= 1:  # catches NaN too
        raise ValueError(f"{name} must be between 0 and 1, not {value!r}.")


def _check_scores(window_scores: np.ndarray, labels: LabelSet) -> None:
    if window_scores.ndim != 2 or window_scores.shape[1] != len(labels):
        raise ValueError(f"Scores of shape {window_scores.shape} do not fit {len(labels)} labels.")
    if np.isnan(window_scores).any():
        raise ValueError("Scores must be numbers, but there is a NaN among them.")


def _check_spans(spans: Spans, windows: int) -> None:
    if len(spans) != windows:
        raise ValueError(f"There are {windows} windows of scores but {len(spans)} spans.")
    for index, (start, end) in enumerate(spans):
        before = spans[index - 1] if index else (-np.inf, -np.inf)
        if not (start < end and before[0] < start and before[1] < end):
            raise ValueError(
                f"Window {index}, {start} to {end} seconds, is empty or does not follow the one before it."
            )
