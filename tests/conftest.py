"""Fixtures of several rooms: a small AST with random weights, and its exports, each made once per run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model import checkpoint
from model.checkpoint import Checkpoint, CheckpointConfig
from model.features import FeatureConfig
from model.labels import LabelSet
from model.registry import build_network

MIDS = ["/m/0bt9lr", "/m/09x0r", "/m/06mb1", "/m/04rlf", "/m/01yrx", "/m/03kmc9"]
SIZES = {
    "ast": {"classes": 6, "mels": 32, "frames": 64, "width": 32, "depth": 2, "heads": 2},
    "aum": {"classes": 6, "mels": 32, "frames": 64, "width": 16, "depth": 1},
}


def save_small(folder: Path, backbone: str) -> Checkpoint:
    """A network with random weights and windows of 0.64 s, saved and loaded."""
    torch.manual_seed(0)
    config = CheckpointConfig(
        name=f"{backbone}-random",
        backbone=backbone,
        backbone_config=SIZES[backbone],
        features=FeatureConfig("fbank", mels=32, frames=64, mean=-6.0, std=5.0),
        window_seconds=0.64,
        hop_seconds=0.64,
    )
    state = build_network(backbone, SIZES[backbone]).state_dict()
    checkpoint.save(folder, config, state, LabelSet.from_mids(MIDS), torch.randn(8000) * 0.1, "# random\n")
    return checkpoint.load(folder)


@pytest.fixture(scope="session")
def small_ast(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save_small(tmp_path_factory.mktemp("checkpoints") / "ast", "ast")


@pytest.fixture(scope="session")
def small_aum(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save_small(tmp_path_factory.mktemp("checkpoints") / "aum", "aum")


@pytest.fixture(scope="session")
def export_of(small_ast: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The folder of the small AST's export to a target in a precision; tests must not change it."""
    root = tmp_path_factory.mktemp("exports")

    def export(target: str, precision: str) -> Path:
        folder = root / f"{target}-{precision}"
        if not folder.exists():
            if target == "onnx":
                from export.to_onnx import to_onnx as make
            else:
                from export.to_openvino import to_openvino as make
            make(small_ast, folder, precision)
        return folder

    return export
