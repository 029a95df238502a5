"""Small corpora on disk, made in code."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from model.training.clips import Clip


def write_sound(path: Path, seconds: float = 0.1, seed: int = 0) -> Path:
    """Seeded noise at 16 kHz in a file of its own; the folder is made too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, round(16000 * seconds))
    soundfile.write(path, noise, 16000)
    return path


def write_clips(folder: Path, mids: Iterable[tuple[str, ...]]) -> list[Clip]:
    """One sound per tuple of mids, each 10 ms longer than the one before, so that they can be told apart."""
    return [
        Clip(write_sound(folder / f"{number}.wav", 0.1 + number / 100, number), labels, f"group{number}", None, "")
        for number, labels in enumerate(mids)
    ]


def broken(folder: Path, name: str = "broken.wav") -> Clip:
    """A clip whose file is no sound."""
    path = folder / name
    path.write_bytes(b"RIFF but not really audio")
    return Clip(path, (), "broken", None, "")
