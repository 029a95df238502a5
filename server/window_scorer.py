"""Scores one window after the other as the whole sound's summary will: the network's, taught classes', rolled up."""

from dataclasses import replace

import numpy as np

from model.own_classes import OwnClasses
from model.rollup import roll_up
from model.scores import ScoredLabel, TagOptions, logits_to_scores, top_labels
from server.served_models import ServedModel


class WindowScorer:
    """One request's labels and options, as they are from its first window to its last."""

    def __init__(self, model: ServedModel, own: OwnClasses, options: TagOptions) -> None:
        self.options = replace(options, rules=own.extend_rules(options.rules))
        self._activation = model.checkpoint.config.activation
        self._known = own.extend_labels(model.checkpoint.labels)
        nothing = np.zeros((1, len(self._known)), np.float32)
        self.labels = roll_up(nothing, self._known)[1] if options.rollup else self._known

    def score(self, logits: np.ndarray, own_scores: np.ndarray) -> np.ndarray:
        """A window's scores, one per label, from its logits (C,) and its scores of taught classes (K,)."""
        scores = np.concatenate([logits_to_scores(logits[None], self._activation), own_scores[None]], axis=1)
        return roll_up(scores, self._known)[0][0] if self.options.rollup else scores[0]

    def top(self, scores: np.ndarray) -> tuple[ScoredLabel, ...]:
        """The labels to report."""
        return top_labels(scores, self.labels, self.options.top_k, self.options.threshold)
