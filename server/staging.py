"""Stacks the next batch while the device runs the one before.

    device      [== batch 7 ==][== batch 8 ==]
    staging       copies the windows that batch 8 would hold now into rows of the buffer that batch 7 does not use
    queue       ............. take ............   who is in batch 8 is decided here, when the device is free

What is prepared is copies only: nothing leaves the queue early, so a newcomer still gets its turn in the very next
batch, and windows that turn out late or cancelled are left out. Rows prepared for nothing are overwritten.
"""

from collections.abc import Sequence
from threading import Lock

import numpy as np

from server.fair_queue import Item
from server.lane import Lane

WORTHWHILE_WINDOWS = 16  # copying fewer takes less than a millisecond, about what waking another thread costs


class Staging:
    """Two buffers of padded rows for one device, of which one is filled while the other is read."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._buffers = [np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32)]
        self._rows: dict[Item, int] = {}  # where the next batch's windows are already, in the first buffer

    def is_worthwhile(self, lane: Lane) -> bool:
        return (lane.brief_windows or lane.batch_windows) >= WORTHWHILE_WINDOWS

    def prepare(self, items: Sequence[Item]) -> None:
        """Copies these windows, all of one lane, into rows of their own; a batch that is being taken goes first."""
        for item in items:
            with self._lock:
                self._fit(item.job.lane)
                if len(self._rows) < len(self._buffers[0]) and item not in self._rows:
                    self._write(item, len(self._rows))

    def collect(self, items: Sequence[Item]) -> tuple[list[Item], np.ndarray, np.ndarray]:
        """The taken items in the order of their rows, those rows float32 (B, S), and their lengths int64 (B,)."""
        with self._lock:
            lane = items[0].job.lane
            self._fit(lane)
            placed = {row: item for item in items if (row := self._rows.get(item, len(items))) < len(items)}
            ready = set(placed.values())
            left = [item for item in items if item not in ready]
            for row in range(len(items)):
                if row not in placed:
                    placed[row] = left.pop(0)
                    self._write(placed[row], row)
            batch = [placed[row] for row in range(len(items))]
            samples = lane.padded_samples([item.waveform for item in batch])
            padded = self._buffers[0][: len(batch), :samples]
            self._rows.clear()
            self._buffers.reverse()
        return batch, padded, np.array([len(item.waveform) for item in batch], np.int64)

    def _fit(self, lane: Lane) -> None:
        shape = (lane.batch_windows, lane.window_samples)
        if self._buffers[0].shape != shape:
            self._rows.clear()
            self._buffers[0] = np.zeros(shape, np.float32)

    def _write(self, item: Item, row: int) -> None:
        target, samples = self._buffers[0][row], len(item.waveform)
        target[:samples] = item.waveform
        target[samples:] = 0
        self._rows[item] = row
