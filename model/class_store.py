"""Taught classes on disk: a file per version, written whole or not at all; the newest readable version counts.

<folder>/<first 16 digits of the weights' SHA-256>/<hash of the name>/000003.safetensors
    tensors   weight (D,), bias (1,), examples (N, D), all float32
    metadata  own_class: JSON of name, version, created, weights_sha256 and quality
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from model.own_classes import OwnClass
from model.teaching import LinearHead, Quality
from model.whole_files import write_whole

KEPT_VERSIONS = 5
FORMAT = 1
_log = logging.getLogger(__name__)


class ClassStore:
    """The classes in one folder, which need not exist before the first is written; one process writes at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read_all(self) -> list[OwnClass]:
        """The newest readable version of every class; a file that cannot be read is logged and passed over."""
        try:
            folders = sorted(path for path in self.folder.glob("*/*") if not path.name.startswith("."))
        except OSError as error:
            _log.error("own classes cannot be read: %s: %s", self.folder, error.strerror)
            return []
        newest = (next(self._readable(folder), None) for folder in folders)
        return [own for own in newest if own is not None]

    def _readable(self, folder: Path) -> Iterator[OwnClass]:
        for path in sorted(folder.glob("*.safetensors"), reverse=True):
            try:
                yield read_class(path)
            except (OSError, ValueError) as error:
                _log.error("own class passed over: %s cannot be read: %s", path, error)

    def write(self, own: OwnClass) -> OwnClass:
        """Stores a new version behind those there are, and returns the class with its number.

        Raises: OSError when the disk refuses; nothing has changed then.
        """
        folder = self._folder(own)
        folder.mkdir(parents=True, exist_ok=True)
        versions = sorted(folder.glob("*.safetensors"))
        numbered = replace(own, version=1 + max((_number(path) for path in versions), default=0))
        write_whole(folder / f"{numbered.version:06d}.safetensors", _to_bytes(numbered))
        for old in versions[: max(0, len(versions) + 1 - KEPT_VERSIONS)]:
            old.unlink(missing_ok=True)
        return numbered

    def remove(self, own: OwnClass) -> None:
        """Deletes every version.

        Raises: OSError when the disk refuses.
        """
        folder = self._folder(own)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".removed-", ignore_cleanup_errors=True) as aside:
            os.replace(folder, Path(aside) / "versions")  # all at once, whatever happens next
            shutil.rmtree(Path(aside) / "versions", ignore_errors=True)

    def _folder(self, own: OwnClass) -> Path:
        """By hash, because a name may mean something to the file system and its capitals may not."""
        return self.folder / own.weights_sha256[:16] / hashlib.sha256(own.key.encode()).hexdigest()[:24]


def read_class(path: Path) -> OwnClass:
    """One version's file.

    Raises: OSError; ValueError for anything but a whole file of this format.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            values = json.loads((file.metadata() or {})["own_class"])
            tensors = {name: file.get_tensor(name) for name in ("weight", "bias", "examples")}
        if values.pop("format") != FORMAT:
            raise ValueError("it has another format than this Hark's")
        head = LinearHead(tensors["weight"], float(tensors["bias"][0]))
        own = OwnClass(head=head, examples=tensors["examples"], quality=Quality(**values.pop("quality")), **values)
    except (SafetensorError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"it is no taught class ({error})") from error
    if not _well_typed(own):
        raise ValueError("its description is of other types than a taught class's")
    fits = head.weight.ndim == 1 and own.examples.ndim == 2 and own.examples.shape[1] == len(head.weight)
    if not fits or not (np.isfinite(head.weight).all() and np.isfinite(head.bias) and np.isfinite(own.examples).all()):
        raise ValueError("its numbers do not fit together")
    return own


def _well_typed(own: OwnClass) -> bool:
    quality = own.quality
    numbers = (quality.average_precision, quality.threshold, quality.recall, quality.precision)
    words = (own.name, own.created, own.weights_sha256, quality.confused_with or "")
    counts = (own.version, quality.clips, quality.negatives)
    return (
        all(isinstance(number, int | float) and 0 <= number <= 1 for number in numbers)
        and all(isinstance(word, str) for word in words)
        and all(isinstance(count, int) for count in counts)
    )


def _to_bytes(own: OwnClass) -> bytes:
    values = {
        **{"format": FORMAT, "name": own.name, "version": own.version, "created": own.created},
        **{"weights_sha256": own.weights_sha256, "quality": asdict(own.quality)},
    }
    tensors = {
        "weight": np.ascontiguousarray(own.head.weight, np.float32),
        "bias": np.array([own.head.bias], np.float32),
        "examples": np.ascontiguousarray(own.examples, np.float32),
    }
    return save(tensors, metadata={"own_class": json.dumps(values)})


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else 0
