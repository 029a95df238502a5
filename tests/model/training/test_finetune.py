"""A tiny run learns, resumes, and is repeatable; a wrong recipe is refused before any work."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from model import checkpoint
from model.training.bundle import bundle
from model.training.data import ManifestError, read_manifest
from model.training.finetune import _follow, finetune, manifest_labels
from model.training.recipe import Recipe, RecipeError, read_recipe

RECIPES = Path(__file__).parents[3] / "model" / "training" / "recipes"


def _recipe(epochs: int) -> Recipe:
    return Recipe(
        name="tiny",
        backbone="aum",
        backbone_config={"mels": 32, "frames": 32, "width": 16, "depth": 1},
        features={"kind": "fbank", "mels": 32, "frames": 32, "mean": -6.0, "std": 5.0},
        window_seconds=0.3,
        epochs=epochs,
        batch=8,
        learning_rate=1e-2,
        mask_mels=4,
        mask_frames=4,
        low_pass_share=0.0,
        mixup_probability=0.2,
        precision="float32",
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sines are "Dog", noises are "Rain"; a fifth is validation."""
    folder = tmp_path_factory.mktemp("sounds")
    random = np.random.default_rng(0)
    rows = ["file,labels,mids,source,split_group,fold,esc50_class"]
    for i in range(40):
        sine = np.sin(np.arange(4800) / 16000 * 2 * np.pi * random.uniform(300, 900))
        waveform = sine if i % 2 else random.standard_normal(4800) * 0.3
        soundfile.write(folder / f"{i}.wav", waveform * 0.5, 16000)
        mid, name = ("/m/0bt9lr", "dog") if i % 2 else ("/m/06mb1", "rain")
        rows.append(f"{i}.wav,{name},{mid},made,{i},{4 if i % 5 == 0 else 1},{name}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def _quiet(_: str) -> None: ...


def _log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_learns_to_tell_two_sounds_apart(manifest: Path, tmp_path: Path) -> None:
    finetune(_recipe(12), manifest, tmp_path, _quiet)
    log = _log(tmp_path)
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["esc50_top1"] == 1.0


def test_a_stopped_run_goes_on_exactly(manifest: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = finetune(_recipe(4), manifest, whole, _quiet)
    interrupted = _stopped_after(2)
    with pytest.raises(KeyboardInterrupt):
        finetune(_recipe(4), manifest, parts, interrupted)
    resumed = finetune(_recipe(4), manifest, parts, _quiet)
    assert [line["loss"] for line in _log(parts)] == [line["loss"] for line in _log(whole)]
    for a, b in zip(expected.average.parameters(), resumed.average.parameters(), strict=True):
        assert a.equal(b)


def _stopped_after(epochs: int):  # type: ignore[no-untyped-def]
    def report(line: str) -> None:
        if line.startswith("{") and json.loads(line)["epoch"] == epochs:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("epocs: 3", "epocs"),
        ("epochs: many", "epochs"),
        ("batch: true", "batch"),
        ("batch: 0", "batch"),
        ("warmup_share: 1.5", "warmup_share"),
        ("precision: float8", "precision"),
        ("- a list", "mapping"),
        ("{", "not YAML"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused(tmp_path: Path, change: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    text = (RECIPES / "aum-tiny.yaml").read_text()
    lines = [line for line in text.splitlines() if not line.startswith(change.split(":")[0] + ":")]
    path.write_text(change if change[0] in "-{" else "\n".join([*lines, change]))
    with pytest.raises(RecipeError, match=message):
        read_recipe(path)


def test_a_recipe_that_lacks_a_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: x\n")
    with pytest.raises(RecipeError, match="lacks the fields backbone, backbone_config"):
        read_recipe(path)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_committed_recipe_reads(path: Path) -> None:
    assert read_recipe(path).name == path.stem


def test_a_run_folder_of_another_recipe_and_a_batch_too_large_are_refused(manifest: Path, tmp_path: Path) -> None:
    finetune(_recipe(1), manifest, tmp_path, _quiet)
    with pytest.raises(RecipeError, match="another recipe"):
        finetune(_recipe(2), manifest, tmp_path, _quiet)
    with pytest.raises(ManifestError, match="fewer than a batch"):
        finetune(replace(_recipe(1), batch=64), manifest, tmp_path / "other", _quiet)


@pytest.mark.parametrize("fold", [0, 4])
def test_a_run_becomes_a_checkpoint_whose_card_says_what_was_measured(
    manifest: Path, tmp_path: Path, fold: int
) -> None:
    """With fold 0 nothing is held out; an early version failed on that, after the training."""
    recipe = replace(_recipe(1), validation_fold=fold)
    finetune(recipe, manifest, tmp_path / "run", _quiet)
    bundle(recipe, tmp_path / "run", manifest_labels(read_manifest(manifest)), tmp_path / "tiny")
    card = checkpoint.load(tmp_path / "tiny").card
    assert ("Nothing was held out" in card) == (fold == 0)
    assert "nan" not in card


def test_the_average_follows_a_batch_norms_own_averages() -> None:
    """An early version averaged parameters only, so that a network with batch norm was saved untrained in part."""
    average, network = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    network(torch.randn(16, 2) + 5)
    _follow(average, network, 0.9)
    assert average.running_mean is not None
    assert average.running_mean.equal(network.running_mean)
