"""Labelled sound for training: a CSV manifest → clips in memory → targets.

The manifest has one row per clip with at least the columns file, mids (`|` between them) and split_group; a `fold`
column, where present, holds official cross-validation folds.
"""

import csv
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.audio import AudioError, read_waveform
from model.labels import LabelSet


class ManifestError(ValueError):
    """A manifest cannot be used; the message says which row and why."""


@dataclass(frozen=True)
class Clip:
    """One row of a manifest: a file relative to the manifest, its labels' mids, and what keeps splits honest."""

    file: Path
    mids: tuple[str, ...]
    split_group: str
    fold: int | None
    category: str


def read_manifest(path: str | Path) -> list[Clip]:
    """Read a CSV manifest.

    Raises: ManifestError if it is empty or lacks a column; OSError if it cannot be read.
    """
    path = Path(path)
    with path.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    if not rows:
        raise ManifestError(f"{path} lists no clips")
    if missing := {"file", "mids", "split_group"} - rows[0].keys():
        raise ManifestError(f"{path} lacks the columns {', '.join(sorted(missing))}")
    return [
        Clip(
            file=path.parent / row["file"],
            mids=tuple(mid for mid in row["mids"].split("|") if mid),
            split_group=row["split_group"],
            fold=int(row["fold"]) if row.get("fold") else None,
            category=row.get("esc50_class", ""),
        )
        for row in rows
    ]


def split(clips: list[Clip], validation_fold: int, validation_share: float = 0.1) -> tuple[list[Clip], list[Clip]]:
    """(training, validation): clips with folds by their fold, others by a hash of their group."""

    def held_out(clip: Clip) -> bool:
        if clip.fold is not None:
            return clip.fold == validation_fold
        return zlib.crc32(clip.split_group.encode()) % 1000 < validation_share * 1000

    return [clip for clip in clips if not held_out(clip)], [clip for clip in clips if held_out(clip)]


def load_waveforms(
    clips: list[Clip], sample_rate: int, report: Callable[[str], None] = print
) -> tuple[list[Clip], list[Tensor]]:
    """Decode every clip to float32 (S,), as the server hears it; the unreadable are left out, reported and counted."""
    kept, waveforms, failed = [], [], 0
    for clip in clips:
        try:
            waveform = read_waveform(clip.file, sample_rate)
        except (OSError, AudioError) as error:
            report(f"left out {clip.file}: {error}")
            failed += 1
            continue
        kept.append(clip)
        waveforms.append(torch.from_numpy(waveform))
    if failed:
        report(f"{failed} of {len(clips)} clips could not be read")
    return kept, waveforms


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
