"""What a live stream's windows say: a message for each, and for each event one when it begins and one when it ends."""

from typing import Any

import numpy as np

from model.events import Event, EventStart, EventTracker
from model.own_classes import OwnClasses
from model.scores import TagOptions, WindowTags
from server.formats import event_values, label_values, window_values
from server.served_models import ServedModel
from server.window_scorer import WindowScorer

Message = dict[str, Any]


class LiveTags:
    """Follows one stream from its first window to its summary; holds no more for a day than for a minute."""

    def __init__(self, model: ServedModel, own: OwnClasses, options: TagOptions) -> None:
        self._model = model
        self._own = own
        self._scorer = WindowScorer(model, own, options)
        self._tracker = EventTracker(self._scorer.labels, self._scorer.options.rules)
        self._best = np.full(len(self._scorer.labels), -np.inf, np.float32)
        self._end_seconds = 0.0
        self.windows = 0
        self.events = 0

    def add(self, start: float, end: float, logits: np.ndarray, embedding: np.ndarray) -> list[Message]:
        """The messages of the next window, at its place in seconds, with its logits (C,) and embedding (D,)."""
        scores = self._scorer.score(logits, self._own.scores(embedding))
        np.maximum(self._best, scores, out=self._best)
        self.windows += 1
        self._end_seconds = end
        window = WindowTags(start, end, self._scorer.top(scores))
        news = self._tracker.push(start, end, scores)
        return [{"type": "window", **window_values(window)}, *self._tell(news)]

    def finish(self) -> list[Message]:
        """The events that the sound's end settles, then the summary."""
        events = self._tell(self._tracker.finish())
        summary = {
            "type": "summary",
            "model": self._model.name,
            "duration_seconds": self._end_seconds,
            "sample_rate": self._model.sample_rate,
            "labels": [label_values(label) for label in self._scorer.top(self._best)],
            "window_count": self.windows,
            "event_count": self.events,
        }
        return [*events, summary]

    def _tell(self, news: list[EventStart | Event]) -> list[Message]:
        self.events += sum(isinstance(event, Event) for event in news)
        return [_event_message(event) for event in news]


def _event_message(event: EventStart | Event) -> Message:
    if isinstance(event, Event):
        return {"type": "event", **event_values(event)}
    begun = {"mid": event.mid, "label": event.label, "start_seconds": event.start_seconds, "score": event.score}
    return {"type": "event_started", **begun}
