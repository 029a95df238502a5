"""AST to ONNX: the same logits after reload, any batch, and nothing half-written."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from export import to_onnx as exporter
from export.parity import compare_logits, session_logits
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


def _checkpoint(folder: Path, backbone: str) -> Checkpoint:
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


@pytest.fixture(scope="module")
def ast(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return _checkpoint(tmp_path_factory.mktemp("checkpoints") / "ast", "ast")


@pytest.fixture(scope="module")
def exported(ast: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "ast"
    exporter.to_onnx(ast, folder)
    return folder


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_gives_the_checkpoints_logits(ast: Checkpoint, exported: Path, batch: int) -> None:
    log_mel = torch.randn(batch, 64, 32)
    with torch.inference_mode():
        expected = ast.network(log_mel).numpy()
    np.testing.assert_allclose(session_logits(exported / "model.onnx", log_mel.numpy()), expected, atol=1e-4)


def test_the_folder_describes_itself(ast: Checkpoint, exported: Path) -> None:
    description = json.loads((exported / "export.json").read_text())
    assert description["source_weights_sha256"] == ast.weights_sha256
    assert description["precision"] == "float32"
    assert description["parity"]["max_abs_diff"] <= exporter.TOLERANCE
    for name in ("config.json", "labels.json", "golden.safetensors", "README.md"):
        assert (exported / name).read_bytes() == (ast.folder / name).read_bytes()


def test_layer_normalisation_stays_one_operator(exported: Path) -> None:
    operators = [node.op_type for node in onnx.load(exported / "model.onnx").graph.node]
    assert operators.count("LayerNormalization") == 6  # two per block, the final one, the head's
    assert "ReduceMean" not in operators or operators.count("ReduceMean") == 1  # the mean of the class tokens


def test_a_mamba_network_is_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    aum = _checkpoint(tmp_path / "aum", "aum")
    with pytest.raises(exporter.NotExportableError, match="torch runtime"):
        exporter.to_onnx(aum, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_not_overwritten(ast: Checkpoint, exported: Path) -> None:
    with pytest.raises(exporter.ExportError, match="exists already"):
        exporter.to_onnx(ast, exported)


def test_a_drifting_export_is_refused_and_leaves_nothing(
    ast: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "session_logits", lambda path, log_mel: session_logits(path, log_mel) + 0.01)
    with pytest.raises(exporter.ParityError, match="differ"):
        exporter.to_onnx(ast, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_parity_counts_differences_and_nan() -> None:
    expected = np.arange(12.0).reshape(2, 6)
    assert compare_logits(expected, expected + 0.5).max_abs_diff == 0.5
    assert compare_logits(expected, expected[:, ::-1]).top5_agreement == 0.0
    assert compare_logits(expected, np.full((2, 6), np.nan)).max_abs_diff == float("inf")
    with pytest.raises(ValueError, match="shape"):
        compare_logits(expected, expected[:1])
