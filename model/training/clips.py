"""A clip: one labelled sound, in a file of its own or inside a tar shard, and the reading of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.audio import AudioError, read_waveform


class ManifestError(ValueError):
    """A corpus cannot be used; the message says which file and row, and why."""


class ClipError(Exception):
    """One clip cannot be read; the message is the reason, `file` the clip's."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(file, reason)
        self.file = file
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class ShardSlice:
    """Where an encoded sound lies in a tar shard: `size_bytes` from `offset_bytes` on; `key` names it there."""

    shard: Path
    key: str
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled sound: its file, its labels' mids, and what keeps splits honest.

    Clips of one recording share `split_group`. `fold` is an official cross-validation fold, `part` an official split:
    "training", "validation", "testing", or "" where there is none. A `stored` clip lies in a shard; then `file` only
    names it.
    """

    file: Path
    mids: tuple[str, ...]
    split_group: str
    fold: int | None
    category: str
    part: str = ""
    stored: ShardSlice | None = None


def read_bytes(clip: Clip) -> bytes:
    """The clip's encoded sound.

    Raises: ClipError if its file, or its part of a shard, cannot be read.
    """
    try:
        if clip.stored is None:
            return clip.file.read_bytes()
        with clip.stored.shard.open("rb") as shard:
            shard.seek(clip.stored.offset_bytes)
            return shard.read(clip.stored.size_bytes)
    except (OSError, ValueError) as error:
        raise ClipError(clip.file, reason_of(error)) from error


def reason_of(error: OSError | ValueError) -> str:
    """Why a file cannot be had: the system's words, or Python's about a name that no file can have."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def decode_clip(clip: Clip, encoded: bytes, sample_rate: int) -> np.ndarray:
    """Decode a clip's bytes to float32 (S,), as the server hears them.

    Raises: ClipError if they are not a whole sound.
    """
    try:
        return read_waveform(encoded, sample_rate)
    except AudioError as error:
        raise ClipError(clip.file, str(error)) from error


def read_clip(clip: Clip, sample_rate: int) -> np.ndarray:
    """Read and decode a clip to float32 (S,).

    Raises: ClipError if that cannot be done.
    """
    return decode_clip(clip, read_bytes(clip), sample_rate)
