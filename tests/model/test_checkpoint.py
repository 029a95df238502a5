"""A checkpoint folder: strict loading, atomic saving, and the golden clip."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model import checkpoint
from model.checkpoint import (
    CheckpointConfig,
    CheckpointError,
    MismatchedWeightsError,
    NotACheckpointError,
    OccupiedFolderError,
)
from model.features import FeatureConfig
from model.labels import LabelSet
from model.registry import build_network

MIDS = ["/m/0bt9lr", "/m/09x0r", "/m/06mb1"]
SIZES = {"classes": 3, "frames": 64, "width": 16, "depth": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved checkpoint of a tiny network with random weights."""
    torch.manual_seed(0)
    config = CheckpointConfig(
        name="tiny",
        backbone="aum",
        backbone_config=SIZES,
        features=FeatureConfig("fbank", frames=64, mean=-6.0, std=5.0),
        window_seconds=0.64,
        hop_seconds=0.64,
        thresholds={"/m/0bt9lr": 0.4},
    )
    state = build_network("aum", SIZES).state_dict()
    waveform = torch.sin(torch.arange(8000) / 16000 * 2 * torch.pi * 440)
    checkpoint.save(
        tmp_path / "tiny", config, state, LabelSet.from_mids(MIDS), waveform, "# tiny\n", dtype=torch.float16
    )
    return tmp_path / "tiny"


def test_what_is_saved_is_loaded(folder: Path) -> None:
    loaded = checkpoint.load(folder)
    assert loaded.name == "tiny"
    assert loaded.config.thresholds == {"/m/0bt9lr": 0.4}
    assert list(loaded.labels.mids) == MIDS
    assert loaded.card == "# tiny\n"
    assert loaded.config.window_samples == 10240
    assert not loaded.network.training
    assert len(loaded.weights_sha256) == 64


def test_the_golden_clip_is_reproduced(folder: Path) -> None:
    loaded = checkpoint.load(folder)
    with torch.inference_mode():
        logits = loaded.network(loaded.features(loaded.golden.waveform[None]))[0]
    torch.testing.assert_close(logits, loaded.golden.logits, atol=1e-5, rtol=0)


def test_saving_again_replaces_and_leaves_nothing_behind(folder: Path) -> None:
    loaded = checkpoint.load(folder)
    checkpoint.save(
        folder, loaded.config, loaded.network.state_dict(), loaded.labels, loaded.golden.waveform, "# second\n"
    )
    assert checkpoint.load(folder).card == "# second\n"
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


def test_a_failed_save_leaves_the_old_checkpoint(folder: Path) -> None:
    loaded = checkpoint.load(folder)
    broken = {name: tensor * float("nan") for name, tensor in loaded.network.state_dict().items()}
    with pytest.raises(MismatchedWeightsError, match="NaN"):
        checkpoint.save(folder, loaded.config, broken, loaded.labels, loaded.golden.waveform, "# broken\n")
    assert checkpoint.load(folder).card == "# tiny\n"
    assert [path.name for path in folder.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "labels.json", "golden.safetensors", "README.md"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(NotACheckpointError, match=name.replace(".", r"\.")):
        checkpoint.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "golden.safetensors"])
def test_a_truncated_file_is_named(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(NotACheckpointError, match=name):
        checkpoint.load(folder)


def _change_config(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format"),
        ({"surprise": 1}, "surprise"),
        ({"backbone": "resnet"}, "resnet"),
        ({"backbone_config": {**SIZES, "colour": 1}}, "colour"),
        ({"backbone_config": {"width": 16}}, "classes"),
        ({"features": {"kind": "fbank"}}, "frames"),
        ({"window_seconds": "5"}, "window_seconds"),
        ({"window_seconds": -1}, "window_seconds"),
        ({"window_seconds": 50}, "64 frames"),
        ({"hop_seconds": 5}, "hop_seconds"),
        ({"activation": "foo"}, "activation"),
        ({"thresholds": None}, "thresholds"),
        ({"thresholds": {"/m/0bt9lr": 7}}, "thresholds"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder: Path, changes: dict[str, object], message: str) -> None:
    _change_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(folder)


def test_a_config_that_is_not_json_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("[]")
    with pytest.raises(NotACheckpointError, match=r"config\.json"):
        checkpoint.load(folder)


def test_missing_unknown_and_misshapen_tensors_are_named(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["surprise"] = state.pop("norm_f.weight")
    state["head.bias"] = state["head.bias"][:2].clone()
    save_file(state, folder / "model.safetensors")
    with pytest.raises(MismatchedWeightsError) as raised:
        checkpoint.load(folder)
    for word in ("missing norm_f.weight", "unknown surprise", "head.bias has shape (2,), expected (3,)"):
        assert word in str(raised.value)


def test_another_number_of_labels_is_refused(folder: Path) -> None:
    LabelSet.from_mids(MIDS[:2]).to_json(folder / "labels.json")
    with pytest.raises(MismatchedWeightsError, match="3 outputs but there are 2 labels"):
        checkpoint.load(folder)


def test_a_folder_that_is_not_a_checkpoint_is_never_replaced(folder: Path) -> None:
    """An early version swapped whatever OUT named for the checkpoint, and so deleted a folder of somebody's work."""
    loaded = checkpoint.load(folder)
    precious = folder.parent / "work" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("years")
    with pytest.raises(OccupiedFolderError, match=r"thesis\.txt"):
        checkpoint.save(
            precious.parent, loaded.config, loaded.network.state_dict(), loaded.labels, loaded.golden.waveform, "# x\n"
        )
    assert precious.read_text() == "years"


def test_the_old_checkpoint_comes_back_when_the_swap_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = checkpoint.load(folder)
    replace = os.replace

    def fail_on_new(source: Path, target: Path) -> None:
        if Path(source).name == "new":
            raise OSError("no")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_on_new)
    with pytest.raises(OSError, match="no"):
        checkpoint.save(
            folder, loaded.config, loaded.network.state_dict(), loaded.labels, loaded.golden.waveform, "# x\n"
        )
    assert checkpoint.load(folder).card == "# tiny\n"
