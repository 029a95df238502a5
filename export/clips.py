"""Real clips to compare an export with: the first window of each, and what is truly in it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from export.errors import ExportError
from model.checkpoint import Checkpoint
from model.training.data import load_waveforms, read_manifest

MOST_CLIPS = 200


@dataclass(frozen=True)
class Clips:
    """Waveforms, each (S,) of at most one window, and their labels as ones in (clips, C) where a manifest tells."""

    waveforms: list[torch.Tensor]
    truth: np.ndarray | None = None


def read_clips(manifest: Path, checkpoint: Checkpoint, most: int = MOST_CLIPS) -> Clips:
    """Read clips spread evenly over a manifest; one whose labels the checkpoint does not know counts as having none.

    Raises: ManifestError; ExportError where no clip can be read.
    """
    listed = read_manifest(manifest)
    listed = listed[:: max(1, len(listed) // most)][:most]
    kept, waveforms = load_waveforms(listed, checkpoint.config.features.sample_rate, report=lambda _: None)
    if not kept:
        raise ExportError(f"{manifest} lists no clip that can be read")
    columns = {mid: column for column, mid in enumerate(checkpoint.labels.mids)}
    truth = np.zeros((len(kept), len(columns)), np.float32)
    for row, clip in enumerate(kept):
        truth[row, [columns[mid] for mid in clip.mids if mid in columns]] = 1
    window = checkpoint.config.window_samples
    return Clips([waveform[:window] for waveform in waveforms], truth)
