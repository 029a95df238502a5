"""Waveforms of a corpus that does not fit memory: decoded when they are asked for, ahead of the training loop."""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import overload

import torch
from torch import Tensor

from model.training.ahead import map_ahead
from model.training.bad_files import BadFiles
from model.training.clips import Clip, ClipError, ManifestError, read_clip

LONGEST_RUN_OF_BAD_FILES = 100
"""So many unreadable clips side by side mean that the corpus is gone, not that some of its files are broken."""


class FileWaveforms(Sequence[Tensor]):
    """The waveforms (S,) of clips, each decoded anew when it is taken; use it where a list of waveforms is used.

    Taking one raises ClipError if it cannot be read; `read_batches` counts those in `bad` and goes on.
    """

    def __init__(self, clips: list[Clip], sample_rate: int, bad: BadFiles) -> None:
        self.clips = clips
        self.sample_rate = sample_rate
        self.bad = bad

    def __len__(self) -> int:
        return len(self.clips)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> "FileWaveforms": ...
    def __getitem__(self, index: int | slice) -> "Tensor | FileWaveforms":
        if isinstance(index, slice):
            return FileWaveforms(self.clips[index], self.sample_rate, self.bad)
        return torch.from_numpy(read_clip(self.clips[index], self.sample_rate))


def open_waveforms(clips: list[Clip], sample_rate: int, bad: BadFiles) -> tuple[list[Clip], FileWaveforms]:
    """(clips, waveforms) of the clips whose files exist; the missing are left out and counted at once.

    Raises: ManifestError if none exists, or if `bad` says that a missing file stops the run.
    """
    kept = []
    for clip in clips:
        if clip.stored is not None or os.path.isfile(clip.file):
            kept.append(clip)
        else:
            bad.add(clip.file, "no such file")
    if clips and not kept:
        raise ManifestError(f"none of the {len(clips)} clips exist, such as {clips[0].file}")
    return kept, FileWaveforms(kept, sample_rate, bad)


def read_batches(
    waveforms: Sequence[Tensor], index_batches: Iterable[Sequence[int]], workers: int = 0
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """(indices, waveforms) of each batch of indices, in order, read ahead by `workers` threads.

    A clip that cannot be read is counted, and the next readable one stands in for it, so that batches stay whole: take
    labels by the indices that come back. What comes does not depend on `workers`.

    Raises: ManifestError if too many clips side by side cannot be read, or one is to stop the run.
    """
    for readings in map_ahead(partial(_read_batch, waveforms), index_batches, workers):
        for _, _, errors in readings:
            for error in errors:
                _tally_of(waveforms, error).add_error(error)
        yield [index for index, _, _ in readings], [waveform for _, waveform, _ in readings]


def read_readable(waveforms: Sequence[Tensor], workers: int = 0) -> Iterator[tuple[int, Tensor]]:
    """(index, waveform) of all that can be read, in order, read ahead by `workers` threads; the others are counted.

    Raises: ManifestError if one that cannot be read is to stop the run.
    """
    for index, read in enumerate(map_ahead(partial(_try_to_read, waveforms), range(len(waveforms)), workers)):
        if isinstance(read, ClipError):
            _tally_of(waveforms, read).add_error(read)
        else:
            yield index, read


def _try_to_read(waveforms: Sequence[Tensor], index: int) -> Tensor | ClipError:
    try:
        return waveforms[index]
    except ClipError as error:
        return error


Reading = tuple[int, Tensor, list[ClipError]]
"""The index that was read, its waveform (S,), and what failed before."""


def _read_batch(waveforms: Sequence[Tensor], indices: Sequence[int]) -> list[Reading]:
    return [_read_from(waveforms, index) for index in indices]


def _read_from(waveforms: Sequence[Tensor], start: int) -> Reading:
    """The first waveform that can be read from `start` on, going round at the end."""
    errors: list[ClipError] = []
    for step in range(min(len(waveforms), LONGEST_RUN_OF_BAD_FILES)):
        index = (start + step) % len(waveforms)
        try:
            return index, waveforms[index], errors
        except ClipError as error:
            errors.append(error)
    raise ManifestError(f"{len(errors)} clips in a row could not be read; the last is {errors[-1].file}: {errors[-1]}")


def _tally_of(waveforms: Sequence[Tensor], error: ClipError) -> BadFiles:
    if not isinstance(waveforms, FileWaveforms):
        raise error
    return waveforms.bad
