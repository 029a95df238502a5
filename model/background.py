"""Sounds that a taught class is not: a bundled set, and which windows of a clip teach.

The set (`model/background`, attributions in its README) has a clip of each of 49 everyday sounds, every second of them
short, and silence, noises and hum, so that one class alone can be taught and clip length is no cue.
"""

from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from model.audio import open_audio
from model.teaching import Clip
from model.windows import WindowGrid, cut_windows

FOLDER = Path(__file__).parent / "background"
BACKGROUND = "everyday background sounds"
MAX_CLIP_SECONDS = 60.0
MAX_CLIP_WINDOWS = 12


def teaching_windows(source: bytes | Path | BinaryIO, sample_rate: int, window_samples: int) -> list[np.ndarray]:
    """A clip's windows, each float32 (at most window_samples,), as a class is taught from them.

    A clip shorter than half a window is also repeated until it fills one: in a recording the sound will stand in a full
    window, and a head taught only from padded ones does not know it there. Of a long clip evenly spread windows count.

    Raises: AudioError (`model/audio.py`), for a sound longer than MAX_CLIP_SECONDS too.
    """
    grid = WindowGrid(window_samples, window_samples)
    with open_audio(source, sample_rate, MAX_CLIP_SECONDS) as stream:
        windows = [window.waveform for window in cut_windows(stream, grid)]
    if len(windows) == 1 and len(windows[0]) <= window_samples / 2:
        windows.append(np.resize(windows[0], window_samples))
    kept = np.unique(np.linspace(0, len(windows) - 1, min(len(windows), MAX_CLIP_WINDOWS)).round().astype(int))
    return [windows[place] for place in kept]


def background_files() -> list[Path]:
    """The bundled sounds."""
    return sorted(FOLDER.glob("*.ogg"))


def background_waveforms(sample_rate: int, window_samples: int) -> list[np.ndarray]:
    """The first window, as it is, of each bundled sound; for the network to embed, in this order."""
    files = (BytesIO(path.read_bytes()) for path in background_files())
    return [teaching_windows(file, sample_rate, window_samples)[0] for file in files]


def background_clips(embeddings: np.ndarray) -> list[Clip]:
    """The embeddings (N, D) of those windows as clips without the class."""
    return [Clip(row[None], BACKGROUND) for row in embeddings]
