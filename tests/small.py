"""Small checkpoints with random weights."""

from pathlib import Path
from typing import Any

import torch

from model import checkpoint
from model.checkpoint import Checkpoint, CheckpointConfig
from model.features import FeatureConfig
from model.labels import LabelSet
from model.registry import build_network

MIDS = ["/m/0bt9lr", "/m/09x0r", "/m/06mb1", "/m/04rlf", "/m/01yrx", "/m/03kmc9"]
SIZES: dict[str, dict[str, Any]] = {
    "ast": {"classes": 6, "mels": 32, "frames": 64, "width": 32, "depth": 2, "heads": 2},
    "cnn": {"classes": 6, "mels": 32, "frames": 64, "widths": (8, 16)},
    "aum": {"classes": 6, "mels": 32, "frames": 64, "width": 16, "depth": 1},
}


def save_small(folder: Path, backbone: str, **changes: object) -> Checkpoint:
    """A network with random weights and windows of 0.64 s, saved and loaded; `changes` are to its sizes."""
    torch.manual_seed(0)
    sizes = {**SIZES[backbone], **changes}
    config = CheckpointConfig(
        name=f"{backbone}-random",
        backbone=backbone,
        backbone_config=sizes,
        features=FeatureConfig("fbank", mels=32, frames=64, mean=-6.0, std=5.0),
        window_seconds=0.64,
        hop_seconds=0.64,
    )
    state = build_network(backbone, sizes).state_dict()
    checkpoint.save(folder, config, state, LabelSet.from_mids(MIDS), torch.randn(8000) * 0.1, "# random\n")
    return checkpoint.load(folder)
