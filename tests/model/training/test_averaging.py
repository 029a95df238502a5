"""Weights averaged over checkpoints: the plain mean of one network, refused where it would mean nothing."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model import checkpoint
from model.checkpoint import CONFIG, WEIGHTS
from model.training.averaging import average_checkpoints, stored_dtype
from model.training.data import read_manifest
from tests.model.training.judged import DOG, RAIN, SPEECH, load_tiny, save_checkpoint, save_corpus


def test_every_weight_is_the_plain_mean_in_the_members_number_format(tmp_path: Path) -> None:
    members = [load_tiny(tmp_path / f"epoch{i}", seed=i) for i in range(3)]
    states = [{name: tensor.clone() for name, tensor in member.network.state_dict().items()} for member in members]
    average_checkpoints(members, tmp_path / "mean")
    mean = load_file(tmp_path / "mean" / WEIGHTS)
    for name, tensor in mean.items():
        expected = torch.stack([state[name] for state in states]).mean(0)
        torch.testing.assert_close(tensor.float(), expected, atol=2e-3, rtol=1e-3)
    assert stored_dtype(tmp_path / "mean") == torch.float16
    loaded = checkpoint.load(tmp_path / "mean")
    assert loaded.name == "mean"
    assert loaded.config.thresholds == {}
    assert all(member.weights_sha256 in loaded.card for member in members)


def _changed(folder: Path, **changes: object) -> checkpoint.Checkpoint:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))
    return checkpoint.load(folder)


def test_checkpoints_that_have_no_mean_are_refused_by_what_differs(tmp_path: Path) -> None:
    first = load_tiny(tmp_path / "first")
    other = _changed(save_checkpoint(tmp_path / "other"), hop_seconds=0.1)
    with pytest.raises(ValueError, match="differ in hop_seconds"):
        average_checkpoints([first, other], tmp_path / "mean")
    relabelled = checkpoint.load(save_checkpoint(tmp_path / "relabelled", mids=(RAIN, DOG, SPEECH)))
    with pytest.raises(ValueError, match="different labels"):
        average_checkpoints([first, relabelled], tmp_path / "mean")
    with pytest.raises(ValueError, match="differ in backbone"):
        average_checkpoints([first, load_tiny(tmp_path / "cnn", backbone="cnn")], tmp_path / "mean")
    with pytest.raises(ValueError, match="at least two"):
        average_checkpoints([first], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_what_stands_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    members = [load_tiny(tmp_path / f"epoch{i}", seed=i) for i in range(2)]
    (tmp_path / "mean").mkdir()
    (tmp_path / "mean" / "notes.txt").write_text("mine")
    with pytest.raises(checkpoint.OccupiedFolderError, match=r"notes\.txt"):
        average_checkpoints(members, tmp_path / "mean")


def test_batch_norm_needs_clips_and_gathers_its_statistics_over_them(tmp_path: Path) -> None:
    members = [load_tiny(tmp_path / f"epoch{i}", seed=i, backbone="cnn") for i in range(2)]
    with pytest.raises(ValueError, match="batch norm"):
        average_checkpoints(members, tmp_path / "mean")
    clips = read_manifest(save_corpus(tmp_path / "clips", seconds=0.3, clips=8))  # one batch of eight windows
    heard: list[torch.Tensor] = []
    norm = next(module for module in members[0].network.modules() if isinstance(module, torch.nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda _, arguments: heard.append(arguments[0].detach().clone()))
    average_checkpoints(members, tmp_path / "mean", clips)
    name = next(name for name in load_file(tmp_path / "mean" / WEIGHTS) if name.endswith("running_mean"))
    stored = load_file(tmp_path / "mean" / WEIGHTS)[name].float()
    torch.testing.assert_close(stored, heard[0].mean((0, 2, 3)), atol=2e-3, rtol=2e-3)
    assert not torch.allclose(stored, load_file(tmp_path / "epoch0" / WEIGHTS)[name].float(), atol=1e-2)
