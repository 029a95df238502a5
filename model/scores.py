"""Logits to scores, and scores to what a listener wants to read: the clip's labels, each window's, and events."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from model.events import Event, EventRules, Spans, check_scores, check_threshold, find_events
from model.labels import LabelSet
from model.rollup import roll_up

__all__ = [
    "ChannelTags",
    "Event",
    "EventRules",
    "ScoredLabel",
    "TagOptions",
    "WindowTags",
    "clip_scores",
    "find_events",
    "logits_to_scores",
    "summarise",
    "summarise_channels",
    "top_labels",
]


@dataclass(frozen=True)
class ScoredLabel:
    """A label and its score, in [0, 1] for sigmoid and softmax."""

    mid: str
    label: str
    score: float


@dataclass(frozen=True)
class WindowTags:
    """The labels of one window, best first; `channel` is None where channels were mixed."""

    start_seconds: float
    end_seconds: float
    labels: tuple[ScoredLabel, ...]
    channel: int | None = None


@dataclass(frozen=True)
class ChannelTags:
    """The top labels of one channel, which counts from 0."""

    channel: int
    labels: tuple[ScoredLabel, ...]


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
        check_threshold("threshold", self.threshold)


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


def summarise_channels(
    window_scores: np.ndarray, spans: Spans, channels: Sequence[int], labels: LabelSet, options: TagOptions
) -> tuple[tuple[ScoredLabel, ...], tuple[ChannelTags, ...], tuple[WindowTags, ...], tuple[Event, ...]]:
    """Turn scores (W, C) of windows at `spans`, each of the channel in `channels`, into one timeline per channel.

    The clip's labels are over all channels; windows come by start, events by start and score, both with their channel.

    Raises: as `summarise`.
    """
    if options.rollup:
        window_scores, labels = roll_up(window_scores, labels)
        options = replace(options, rollup=False)
    tops: list[ChannelTags] = []
    windows: list[WindowTags] = []
    events: list[Event] = []
    for channel in sorted(set(channels)):
        rows = [row for row, of in enumerate(channels) if of == channel]
        best, tags, found = summarise(window_scores[rows], [spans[row] for row in rows], labels, options)
        tops.append(ChannelTags(channel, best))
        windows += [replace(tag, channel=channel) for tag in tags]
        events += [replace(event, channel=channel) for event in found]
    windows.sort(key=lambda window: window.start_seconds)
    events.sort(key=lambda event: (event.start_seconds, -event.score))
    clip = top_labels(clip_scores(window_scores), labels, options.top_k, options.threshold)
    return clip, tuple(tops), tuple(windows), tuple(events)


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
    check_threshold("threshold", threshold)
    check_scores(scores[None], labels)
    best = np.argsort(-scores, kind="stable")[:top_k]
    return tuple(
        ScoredLabel(labels[int(i)].mid, labels[int(i)].name, float(scores[i])) for i in best if scores[i] >= threshold
    )


def _check_top_k(top_k: int) -> None:
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
        raise ValueError(f"top_k must be a whole number of at least 1, not {top_k!r}.")
