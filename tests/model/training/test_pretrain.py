"""Pre-training learns, goes on, becomes a checkpoint that starts taggers, and draws its masks as the papers do."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model import checkpoint
from model.labels import LabelSet
from model.training.bundle import bundle
from model.training.finetune import finetune
from model.training.pretrain import crop_frames, draw_patches, pretrain
from model.training.recipe import RecipeError
from model.training.schedules import ScheduleConfig
from tests.model.training.tiny_runs import SSAM, SSAST, quiet, read_log, tiny_pretraining, tiny_recipe, write_corpus

NO_LABELS = LabelSet.from_mids([])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("sounds"), 20)


def _ssast(**changes: Any) -> Any:
    return tiny_pretraining(backbone="ssast", backbone_config=SSAST, masked_patches=6, learning_rate=1e-3, **changes)


def test_ssam_learns_and_starts_a_tagger(manifest: Path, tmp_path: Path) -> None:
    recipe = tiny_pretraining(6)
    run = pretrain(recipe, manifest, tmp_path / "run", quiet)
    log = read_log(tmp_path / "run")
    assert log[-1]["loss"] < log[0]["loss"]
    bundle(recipe, tmp_path / "run", NO_LABELS, tmp_path / "pretrained")
    saved = checkpoint.load(tmp_path / "pretrained")
    assert len(saved.labels) == 0
    assert run.average is not None
    assert torch.equal(saved.network.mask_token, run.average.mask_token)
    assert "without labels" in saved.card
    tagger = tiny_recipe(1, backbone="ssam", backbone_config=SSAM, initial=str(tmp_path / "pretrained"))
    finetune(tagger, manifest, tmp_path / "tagger", quiet)


@pytest.mark.parametrize("clusters", [True, False])
def test_ssast_learns_and_tells_how_many_patches_it_tells_apart(manifest: Path, tmp_path: Path, clusters: bool) -> None:
    schedule = ScheduleConfig(kind="plateau", warmup_steps=2)
    recipe = _ssast(epochs=2, clusters=clusters, validation_fold=4, schedule=schedule, keep="last")
    pretrain(recipe, manifest, tmp_path, quiet)
    line = read_log(tmp_path)[-1]
    assert {"epoch", "loss", "validation_loss", "contrast", "squared_error", "accuracy"} == line.keys()
    assert 0 <= line["accuracy"] <= 1


@pytest.mark.parametrize("objective", ["discriminative", "generative"])
def test_one_objective_alone_leaves_the_others_head_as_it_was(manifest: Path, tmp_path: Path, objective: str) -> None:
    run = pretrain(_ssast(epochs=1, objective=objective), manifest, tmp_path, quiet)
    left_out = run.network.gpredlayer if objective == "discriminative" else run.network.cpredlayer
    assert all(parameter.grad is None for parameter in left_out.parameters())


def test_an_interrupted_run_goes_on_exactly(manifest: Path, tmp_path: Path) -> None:
    pretrain(tiny_pretraining(2), manifest, tmp_path / "whole", quiet)

    def interrupt(line: str) -> None:
        if line.startswith('{"epoch": 1'):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny_pretraining(2), manifest, tmp_path / "parts", interrupt)
    pretrain(tiny_pretraining(2), manifest, tmp_path / "parts", quiet)
    assert read_log(tmp_path / "whole") == read_log(tmp_path / "parts")


def test_whole_clips_are_cropped_after_their_standardisation(manifest: Path, tmp_path: Path) -> None:
    """SSAM's way: log-mel of the clip, then as many frames as the network sees, anywhere in it."""
    features = {"kind": "log_mel", "mels": 32, "frames": 31, "unbiased_std": False}
    shape = {**SSAM, "frames": 16}
    pretrain(tiny_pretraining(1, features=features, backbone_config=shape), manifest, tmp_path, quiet)
    with pytest.raises(RecipeError, match="the network sees 32 frames, the front end gives 31"):
        pretrain(tiny_pretraining(1, features=features), manifest, tmp_path, quiet)


def test_crops_lie_in_the_valid_frames_and_short_rows_are_repeated() -> None:
    rows = torch.arange(20.0).expand(3, 20)[:, :, None]  # (B, T, 1)
    cropped = crop_frames(rows, torch.tensor([20, 12, 3]), 8, torch.Generator().manual_seed(0))[:, :, 0]
    for row, count in zip(cropped[:2], (20, 12), strict=True):
        assert torch.equal(row, torch.arange(8) + row[0])
        assert row[-1] < count
    assert cropped[2].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    starts = {
        int(crop_frames(rows, torch.tensor([20, 20, 20]), 8, torch.Generator().manual_seed(i))[0, 0, 0])
        for i in range(40)
    }
    assert min(starts) == 0
    assert max(starts) == 11


def test_patches_are_drawn_in_clusters_or_evenly_and_differ_between_clips() -> None:
    for clusters in (True, False):
        drawn = draw_patches(_ssast(clusters=clusters), (4, 4), 5, torch.Generator().manual_seed(1))
        assert drawn.shape == (5, 6)
        assert all(len(set(row)) == 6 for row in drawn.tolist())
        assert len({tuple(row) for row in drawn.tolist()}) > 1


def test_masks_that_leave_nothing_are_refused_before_a_sound_is_decoded(manifest: Path, tmp_path: Path) -> None:
    gone = tmp_path / "manifest.csv"  # its files are not there
    gone.write_text(manifest.read_text())
    with pytest.raises(RecipeError, match="masked_patches 15 leaves too few of 4 x 4"):
        pretrain(replace(_ssast(), masked_patches=15), gone, tmp_path, quiet)
    with pytest.raises(RecipeError, match="leaves none of"):
        pretrain(tiny_pretraining(mask_ratio=0.99), gone, tmp_path, quiet)
