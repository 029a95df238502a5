"""Labelled sound for training: a CSV manifest → clips in memory → targets.

The manifest has one row per clip with at least the columns file, mids (`|` between them) and split_group; a `fold`
column, where present, holds official cross-validation folds, a `part` column official splits. Other formats are read
by `corpus.py`, corpora that do not fit memory by `waveforms.py`.
"""

import csv
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.labels import LabelSet
from model.training.ahead import map_ahead
from model.training.bad_files import BadFiles
from model.training.clips import Clip, ClipError, ManifestError, read_clip

PARTS = ("", "training", "validation", "testing")


def read_manifest(path: str | Path) -> list[Clip]:
    """Read a CSV manifest.

    Raises: ManifestError if it is empty, lacks a column or has a wrong row; OSError if it cannot be read.
    """
    path = Path(path)
    return [_read_row(path, line, row) for line, row in read_rows(path, ("file", "mids", "split_group"))]


def _read_row(path: Path, line: int, row: dict[str, str]) -> Clip:
    fold, part = row.get("fold", ""), row.get("part", "")
    if not row["file"]:
        raise ManifestError(f"{path} line {line} names no file")
    if fold and not fold.isdecimal():
        raise ManifestError(f"{path} line {line}: fold must be a whole number, not {fold!r}")
    if part not in PARTS:
        raise ManifestError(f"{path} line {line}: part must be training, validation or testing, not {part!r}")
    return Clip(
        file=path.parent / row["file"],
        mids=tuple(mid for mid in row["mids"].split("|") if mid),
        split_group=row["split_group"],
        fold=int(fold) if fold else None,
        category=row.get("esc50_class", ""),
        part=part,
    )


def read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, row) of a CSV file whose header has at least `columns`.

    Raises: ManifestError if it is not such a file or has no rows; OSError if it cannot be read.
    """
    empty = True
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            if missing := set(columns) - set(reader.fieldnames or columns):
                raise ManifestError(f"{path} lacks the columns {', '.join(sorted(missing))}")
            for row in reader:
                if None in row or None in row.values():
                    raise ManifestError(f"{path} line {reader.line_num} has more or fewer cells than the header")
                empty = False
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path} is not a CSV file in UTF-8: {error}") from error
    if empty:
        raise ManifestError(f"{path} lists no clips")


def split(clips: list[Clip], validation_fold: int, validation_share: float = 0.1) -> tuple[list[Clip], list[Clip]]:
    """(training, validation): clips by their official part or fold, others by a hash of their group.

    Clips of the part "testing" are in neither; `clips_of` gives them.
    """

    def held_out(clip: Clip) -> bool:
        if clip.part:
            return clip.part == "validation"
        if clip.fold is not None:
            return clip.fold == validation_fold
        return zlib.crc32(clip.split_group.encode(errors="surrogatepass")) % 1000 < validation_share * 1000

    seen = [clip for clip in clips if clip.part != "testing"]
    return [clip for clip in seen if not held_out(clip)], [clip for clip in seen if held_out(clip)]


def clips_of(clips: list[Clip], part: str) -> list[Clip]:
    """The clips of one official part: "training", "validation" or "testing"."""
    return [clip for clip in clips if clip.part == part]


def used_labels(clips: list[Clip]) -> LabelSet:
    """Every label that the clips use, ordered by mid."""
    return LabelSet.from_mids(sorted({mid for clip in clips for mid in clip.mids}))


def require_labels(clips: list[Clip]) -> None:
    """Raises: ManifestError if no clip has a label, as in a corpus for pre-training."""
    if not any(clip.mids for clip in clips):
        raise ManifestError("no clip has a label, so there is nothing to learn but sounds: that is pre-training")


def load_waveforms(
    clips: list[Clip],
    sample_rate: int,
    report: Callable[[str], None] = print,
    bad: BadFiles | None = None,
    workers: int = 0,
) -> tuple[list[Clip], list[Tensor]]:
    """Decode every clip to float32 (S,), as the server hears it; the unreadable are left out, reported and counted.

    Where the run has its own tally, `bad` takes the unreadable and the caller reports their count at the end.
    `workers` threads decode ahead.

    Raises: ManifestError if `bad` says that an unreadable file stops the run.
    """
    tally = bad or BadFiles("skip", report)
    kept, waveforms = [], []
    for clip, read in zip(clips, map_ahead(partial(_try_to_read, sample_rate), clips, workers), strict=True):
        if isinstance(read, ClipError):
            tally.add_error(read)
        else:
            kept.append(clip)
            waveforms.append(torch.from_numpy(read))
    if bad is None:
        tally.summarise(len(clips))
    return kept, waveforms


def _try_to_read(sample_rate: int, clip: Clip) -> np.ndarray | ClipError:
    try:
        return read_clip(clip, sample_rate)
    except ClipError as error:
        return error


def targets(clips: list[Clip], labels: LabelSet) -> Tensor:
    """Multi-hot (clips, C) float32.

    Raises: ManifestError for a mid that is not in the label set.
    """
    result = torch.zeros(len(clips), len(labels))
    index = {mid: i for i, mid in enumerate(labels.mids)}
    for row, clip in enumerate(clips):
        for mid in clip.mids:
            if mid not in index:
                raise ManifestError(f"{clip.file}: label {mid} is not in the label set")
            result[row, index[mid]] = 1
    return result
