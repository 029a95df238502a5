"""Cuts a stream of waveform blocks into the windows that the network sees; all window and hop arithmetic is here.

A clip of at most one window is one window of its own length (padding belongs to the features):

    clip      |=======|
    window 0  |=======|

A longer clip is cut every hop; what is left at its end is covered by one more window, moved back to end with the clip:

    clip      |==========================|
    window 0  |============|
    window 1        |============|
    window 2              |============|
    window 3                |============|      not |==========....| : no padding, every window is full
              <-hop->
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class WindowGrid:
    """Window length and distance between window starts, in samples: 1 <= hop <= window, so no sample is skipped."""

    window_samples: int
    hop_samples: int

    def __post_init__(self) -> None:
        if not 1 <= self.hop_samples <= self.window_samples:
            raise ValueError(
                f"hop_samples must lie between 1 and window_samples ({self.window_samples}), not {self.hop_samples}"
            )


@dataclass(frozen=True)
class Window:
    """One window: its place in the clip and its own copy of the samples, float32 (at most window_samples,)."""

    index: int
    start_sample: int
    waveform: np.ndarray

    @property
    def end_sample(self) -> int:
        """One past the last sample."""
        return self.start_sample + len(self.waveform)


def cut_windows(blocks: Iterable[np.ndarray], grid: WindowGrid) -> Iterator[Window]:
    """Cut blocks of mono waveform, float32 (samples,) each, into windows; holds at most one window and one block.

    The windows do not depend on how the waveform is cut into blocks. No samples, no windows.
    """
    held = np.zeros(0, np.float32)  # the last samples of the clip so far
    total = index = 0
    for block in blocks:
        held = np.concatenate([held, block], dtype=np.float32)
        total += len(block)
        while (start := index * grid.hop_samples) + grid.window_samples <= total:
            offset = start - (total - len(held))
            yield Window(index, start, held[offset : offset + grid.window_samples].copy())
            index += 1
        held = held[-grid.window_samples :]  # a last window moved back to the clip's end reaches no further
    if index < count_windows(total, grid):
        yield Window(index, total - len(held), held)


def count_windows(samples: int, grid: WindowGrid) -> int:
    """How many windows `cut_windows` makes of a clip of so many samples."""
    if samples <= grid.window_samples:
        return min(samples, 1)
    return 1 + -(-(samples - grid.window_samples) // grid.hop_samples)  # rounded up: the last one is moved back
