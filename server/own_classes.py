"""The taught classes of every network: read from disk once, replaced whole when one is taught or deleted.

OwnClassError
├── ClassNotFoundError     no class of this name
├── TooFewClipsError       fewer clips than a class needs
├── TooManyClassesError    the network has as many as it may
└── NotStoredError         the disk refused
"""

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from model.checkpoint import Checkpoint
from model.class_store import ClassStore
from model.own_classes import OwnClass, OwnClasses, check_class_name, class_key, embedding_width
from model.registry import model_cache
from model.teaching import Clip, teach

_log = logging.getLogger(__name__)
GIVEN = "the negatives you gave"
LEAST_CLIPS = 3
MOST_CLIPS = 100
OTHERS_CLIPS = 60  # of all other own classes together, so that many classes do not drown the background


class OwnClassError(ValueError):
    """Base of what keeps a class from being taught, found or deleted."""


class ClassNotFoundError(OwnClassError):
    """The network has no own class of this name."""


class TooFewClipsError(OwnClassError):
    """Too few clips to teach a class, and to judge it."""


class TooManyClassesError(OwnClassError):
    """The network has as many own classes as the settings let it have."""


class NotStoredError(OwnClassError):
    """The disk is full, or may not be written to."""


@dataclass(frozen=True)
class Lesson:
    """What a class is taught from: its clips, and clips without it, those that come with Hark included."""

    name: str
    positives: Sequence[Clip]
    negatives: Sequence[Clip]


def classes_folder(setting: Path | None) -> Path:
    """Where taught classes are kept: the setting's folder, or `classes` in the cache."""
    return model_cache().parent / "classes" if setting is None else setting.expanduser().absolute()


def read_classes(folder: Path | None, checkpoint: Checkpoint) -> OwnClasses:
    """The checkpoint's taught classes, for tagging without a server."""
    return _fitting(ClassStore(classes_folder(folder)).read_all(), checkpoint)


def _fitting(stored: Iterable[OwnClass], checkpoint: Checkpoint) -> OwnClasses:
    """Those taught to this very network; one that says so, but is of another width, is logged and passed over."""
    width, fitting = embedding_width(checkpoint.network), []
    for own in stored:
        if own.weights_sha256 != checkpoint.weights_sha256:
            continue
        if width in (None, len(own.head.weight)):
            fitting.append(own)
        else:
            _log.error(
                "own class %r passed over: it takes %d features, but %s has %s; teach it anew",
                *(own.name, len(own.head.weight), checkpoint.name, width),
            )
    return OwnClasses.of(fitting)


class ClassRoom:
    """All networks' taught classes, by the SHA-256 of their weights; may be used from several threads."""

    def __init__(self, folder: Path, most: int) -> None:
        self._store = ClassStore(folder)
        self._most = most
        self._lock = threading.Lock()
        self._classes: dict[str, OwnClasses] = {}
        self.background: dict[str, list[Clip]] = {}  # Hark's own negatives, once they have been embedded
        self._stored = self._store.read_all()

    def of(self, checkpoint: Checkpoint) -> OwnClasses:
        """The network's classes at this moment; the first call chooses the stored ones that fit it."""
        key = checkpoint.weights_sha256
        if key not in self._classes:
            self._classes.setdefault(key, _fitting(self._stored, checkpoint))
        return self._classes[key]

    def find(self, checkpoint: Checkpoint, name: str) -> OwnClass:
        """One class, whatever the capitals of its name.

        Raises: ClassNotFoundError naming those there are.
        """
        classes = self.of(checkpoint)
        for own in classes:
            if own.key == class_key(name):
                return own
        known = ", ".join(own.name for own in classes) or "none"
        raise ClassNotFoundError(f"the model has no own class {name!r}; there are: {known}")

    def check(self, checkpoint: Checkpoint, name: str) -> str:
        """The name as it will be stored.

        Raises: ClassNameError (`model/own_classes.py`); TooManyClassesError.
        """
        name = check_class_name(name, checkpoint.labels)
        keys = {own.key for own in self.of(checkpoint)}
        if class_key(name) not in keys and len(keys) >= self._most:
            raise TooManyClassesError(f"the model has {len(keys)} own classes, the most it may have; delete one first")
        return name

    def teach(self, checkpoint: Checkpoint, lesson: Lesson) -> OwnClass:
        """Fits, judges, stores and from then on offers a class; one of the same name is replaced. Takes a second.

        Raises: ClassNameError, TeachingError (`model/`); TooManyClassesError, NotStoredError.
        """
        negatives = [*lesson.negatives, *self._other_clips(checkpoint, lesson.name)]
        head, quality = teach(lesson.positives, negatives)
        examples = np.concatenate([clip.embeddings[:1] for clip in lesson.positives])
        created = datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock:
            name = self.check(checkpoint, lesson.name)
            own = self._store_class(OwnClass(name, 0, created, checkpoint.weights_sha256, head, quality, examples))
            self._classes[own.weights_sha256] = OwnClasses.of([*self._without(own), own])
        return own

    def remove(self, checkpoint: Checkpoint, name: str) -> None:
        """Deletes a class, all its versions included.

        Raises: ClassNotFoundError, NotStoredError.
        """
        with self._lock:
            own = self.find(checkpoint, name)
            try:
                self._store.remove(own)
            except FileNotFoundError:
                pass  # somebody tidied up by hand
            except OSError as error:
                raise NotStoredError(f"class {name!r} cannot be deleted: {error}") from error
            self._classes[own.weights_sha256] = OwnClasses.of(self._without(own))

    def _store_class(self, own: OwnClass) -> OwnClass:
        try:
            return self._store.write(own)
        except OSError as error:
            raise NotStoredError(f"class {own.name!r} cannot be stored: {error}") from error

    def _without(self, left_out: OwnClass) -> Iterator[OwnClass]:
        return (own for own in self._classes[left_out.weights_sha256] if own.key != left_out.key)

    def _other_clips(self, checkpoint: Checkpoint, name: str) -> Iterator[Clip]:
        """Examples of the network's other own classes, as clips without this one."""
        others = [own for own in self.of(checkpoint) if own.key != class_key(name)]
        for own in others:
            rows = own.examples[: max(1, OTHERS_CLIPS // len(others))]
            yield from (Clip(row[None], f"your class {own.name!r}") for row in rows)


def describe_quality(own: OwnClass) -> str:
    """How well the class is told apart, in one sentence for whoever taught it."""
    quality = own.quality
    if quality.confused_with is not None:
        return (
            f"{own.name!r} cannot be told apart from {quality.confused_with}: clips of both score alike when they are"
            " left out; send clearer or more clips, or negatives that differ"
        )
    return (
        f"{own.name!r} is told apart: at the threshold of {quality.threshold:.2f} it finds"
        f" {quality.recall:.0%} of its {quality.clips} clips when each is left out, with a precision of"
        f" {quality.precision:.0%} against {quality.negatives} negatives"
    )
