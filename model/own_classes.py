"""Classes that users teach: named linear heads over one network's embeddings, and how they join its labels.

window embeddings (W, D) ─► own heads ─► scores (W, K) ─┐
window logits (W, C) ─────► scores (W, C) ──────────────┴─► scores (W, C + K) of labels C + K
"""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import nn

from model.events import EventRules
from model.labels import Label, LabelSet
from model.scores import TagOptions
from model.teaching import LinearHead, Quality

MID_PREFIX = "/own/"
MAX_NAME_LENGTH = 64
PUNCTUATION = " _-.,'()&+"


class ClassNameError(ValueError):
    """The name cannot be a label; the message says what to change."""


class ClassNameTakenError(ClassNameError):
    """The network has a label of this name already."""


@dataclass(frozen=True, eq=False)
class OwnClass:
    """One version of a taught class; it fits the network with these weights and no other.

    `examples` float32 (N, D) are its clips' embeddings: other classes learn to differ from them.
    """

    name: str
    version: int
    created: str  # ISO 8601, UTC
    weights_sha256: str
    head: LinearHead
    quality: Quality
    examples: np.ndarray

    @property
    def key(self) -> str:
        """Equal for names that differ in capitals only."""
        return class_key(self.name)

    @property
    def mid(self) -> str:
        return MID_PREFIX + self.name


def class_key(name: str) -> str:
    """What two spellings of one name have in common."""
    return unicodedata.normalize("NFC", name).casefold()


def check_class_name(name: str, labels: LabelSet) -> str:
    """The name in Unicode's composed form.

    Raises: ClassNameError; ClassNameTakenError where one of the network's labels has the name.
    """
    name = unicodedata.normalize("NFC", name)
    if not 1 <= len(name) <= MAX_NAME_LENGTH or name != name.strip():
        raise ClassNameError(f"a class's name has 1 to {MAX_NAME_LENGTH} characters, without spaces around them")
    strange = [character for character in name if not _may_stand(character)]
    if strange or not name[0].isalnum():
        what = f"not {strange[0]!r}" if strange else f"and the first one is not {name[0]!r}"
        raise ClassNameError(f"a class's name has letters, digits, spaces and _-.,'()&+ only, {what}")
    for label in labels:
        if class_key(name) in (class_key(label.name), class_key(label.mid)):
            raise ClassNameTakenError(f"the model has a label {label.name!r} already; choose another name")
    return name


def _may_stand(character: str) -> bool:
    """Letters of any script with their marks, digits, and the punctuation that AudioSet's names have."""
    return character.isalnum() or character in PUNCTUATION or unicodedata.category(character) in ("Mn", "Mc")


@dataclass(frozen=True, eq=False)
class OwnClasses:
    """All taught classes of one network at one moment, in the order of their names; it never changes."""

    classes: tuple[OwnClass, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.classes)

    def __iter__(self) -> Iterator[OwnClass]:
        return iter(self.classes)

    @classmethod
    def of(cls, classes: Iterable[OwnClass]) -> "OwnClasses":
        return cls(tuple(sorted(classes, key=lambda own: own.key)))

    @cached_property
    def _weights(self) -> np.ndarray:
        return np.stack([own.head.weight for own in self.classes], axis=1)  # (D, K)

    @cached_property
    def _biases(self) -> np.ndarray:
        return np.array([own.head.bias for own in self.classes], np.float32)

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Scores float32 (..., K) in [0, 1] of window embeddings (..., D)."""
        if not self:
            return np.zeros((*embeddings.shape[:-1], 0), np.float32)
        logits = embeddings @ self._weights + self._biases
        return (0.5 * (1 + np.tanh(0.5 * logits))).astype(np.float32)

    def extend_labels(self, labels: LabelSet) -> LabelSet:
        """The network's labels, then the own ones."""
        if not self:
            return labels
        own = (Label(len(labels) + place, own.mid, own.name) for place, own in enumerate(self.classes))
        return LabelSet((*labels, *own))

    def extend_rules(self, rules: EventRules) -> EventRules:
        """The network's rules for events, with each own class's threshold."""
        thresholds = {own.mid: own.quality.threshold for own in self.classes}
        return replace(rules, per_class={**rules.per_class, **thresholds}) if self else rules


NO_CLASSES = OwnClasses()


def embedding_width(network: nn.Module) -> int | None:
    """D of the network's embeddings: what its head takes; None where it has no head to ask."""
    head = getattr(network, "head", None)
    first = next(head.parameters(), None) if isinstance(head, nn.Module) else None
    return None if first is None else first.shape[-1]  # a norm's weight is (D,), a linear layer's (C, D)


@dataclass(frozen=True, eq=False)
class OwnScores:
    """Taught classes with the scores float32 (W, K) that they give a sound's windows."""

    classes: OwnClasses
    scores: np.ndarray

    def join(
        self, scores: np.ndarray, labels: LabelSet, options: TagOptions
    ) -> tuple[np.ndarray, LabelSet, TagOptions]:
        """The network's scores (W, C) and labels with the own ones behind them, and the options for both."""
        joined = np.concatenate([scores, self.scores], axis=1)
        extended = replace(options, rules=self.classes.extend_rules(options.rules))
        return joined, self.classes.extend_labels(labels), extended
