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

LEAST_SECONDS = 0.1  # of a window and of a hop: a patch spans 0.16 s, so anything finer costs and shows nothing


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
    """One window: its place in the clip and its own copy of the samples, float32 (at most window_samples,).

    `channel` counts from 0 where channels are cut one by one, and is None where they were mixed.
    """

    index: int
    start_sample: int
    waveform: np.ndarray
    channel: int | None = None

    @property
    def end_sample(self) -> int:
        """One past the last sample."""
        return self.start_sample + len(self.waveform)


class WindowCutter:
    """Cuts a waveform that comes in blocks, float32 (samples,) or (samples, channels); holds one window and one block.

    The windows do not depend on how the waveform is cut into blocks. Run each call's windows to their end before the
    next call.
    """

    def __init__(self, grid: WindowGrid) -> None:
        self.samples = 0  # taken so far
        self._grid = grid
        self._index = 0
        self._held: np.ndarray | None = None  # the last samples of the clip so far

    def push(self, block: np.ndarray) -> Iterator[Window]:
        """Yields the windows that this block completes."""
        held = np.concatenate([block[:0] if self._held is None else self._held, block], dtype=np.float32)
        self.samples += len(block)
        while (start := self._index * self._grid.hop_samples) + self._grid.window_samples <= self.samples:
            offset = start - (self.samples - len(held))
            yield Window(self._index, start, held[offset : offset + self._grid.window_samples].copy())
            self._index += 1
        self._held = held[-self._grid.window_samples :]  # a last window moved back to the end reaches no further

    def finish(self) -> Iterator[Window]:
        """Yields the window that covers what is left, if anything is."""
        if self._held is not None and self._index < count_windows(self.samples, self._grid):
            yield Window(self._index, self.samples - len(self._held), self._held)


def cut_windows(blocks: Iterable[np.ndarray], grid: WindowGrid) -> Iterator[Window]:
    """Cut blocks of mono waveform, float32 (samples,) each, into windows. No samples, no windows."""
    cutter = WindowCutter(grid)
    for block in blocks:
        yield from cutter.push(block)
    yield from cutter.finish()


def cut_channels(blocks: Iterable[np.ndarray], grid: WindowGrid) -> Iterator[Window]:
    """Cut blocks (samples, channels) into windows of one channel each; those of one place come in order of channel."""
    for window in cut_windows(blocks, grid):
        for channel, waveform in enumerate(window.waveform.T):
            yield Window(window.index, window.start_sample, waveform.copy(), channel)


def count_windows(samples: int, grid: WindowGrid) -> int:
    """How many windows `cut_windows` makes of a clip of so many samples."""
    if samples <= grid.window_samples:
        return min(samples, 1)
    return 1 + -(-(samples - grid.window_samples) // grid.hop_samples)  # rounded up: the last one is moved back
