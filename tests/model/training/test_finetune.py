"""A tiny run learns, goes on after an interruption, and becomes a checkpoint; what cannot work is refused at once."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model import checkpoint
from model.registry import build_network
from model.training.bundle import bundle
from model.training.clips import ManifestError
from model.training.data import read_manifest, used_labels
from model.training.finetune import finetune
from model.training.initial import start_at_priors
from model.training.recipe import RecipeError
from model.training.run_state import read_state
from model.training.sounds import Place
from tests.model.training.tiny_runs import AUM, quiet, read_log, tiny_recipe, write_corpus


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("sounds"))


def test_a_run_learns_to_tell_two_sounds_apart(manifest: Path, tmp_path: Path) -> None:
    finetune(tiny_recipe(12), manifest, tmp_path, quiet)
    log = read_log(tmp_path)
    assert log[-1]["loss"] < log[0]["loss"]
    assert log[-1]["esc50_top1"] == 1.0


def test_a_stopped_run_goes_on_exactly(manifest: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = finetune(tiny_recipe(4), manifest, whole, quiet)
    interrupted = _stopped_after(2)
    with pytest.raises(KeyboardInterrupt):
        finetune(tiny_recipe(4), manifest, parts, interrupted)
    resumed = finetune(tiny_recipe(4), manifest, parts, quiet)
    assert [line["loss"] for line in read_log(parts)] == [line["loss"] for line in read_log(whole)]
    for a, b in zip(expected.average.parameters(), resumed.average.parameters(), strict=True):
        assert a.equal(b)


def _stopped_after(epochs: int):  # type: ignore[no-untyped-def]
    def report(line: str) -> None:
        if line.startswith("{") and json.loads(line)["epoch"] == epochs:
            raise KeyboardInterrupt

    return report


def test_a_run_folder_of_another_recipe_and_a_batch_too_large_are_refused(manifest: Path, tmp_path: Path) -> None:
    finetune(tiny_recipe(1), manifest, tmp_path, quiet)
    with pytest.raises(RecipeError, match="another recipe"):
        finetune(tiny_recipe(2), manifest, tmp_path, quiet)
    with pytest.raises(ManifestError, match="fewer than a batch"):
        finetune(replace(tiny_recipe(1), batch=64), manifest, tmp_path / "other", quiet)


@pytest.mark.parametrize("fold", [0, 4])
def test_a_run_becomes_a_checkpoint_whose_card_says_what_was_measured(
    manifest: Path, tmp_path: Path, fold: int
) -> None:
    """With fold 0 nothing is held out; an early version failed on that, after the training."""
    recipe = replace(tiny_recipe(1), validation_fold=fold)
    finetune(recipe, manifest, tmp_path / "run", quiet)
    bundle(recipe, tmp_path / "run", used_labels(read_manifest(manifest)), tmp_path / "tiny")
    card = checkpoint.load(tmp_path / "tiny").card
    assert ("Nothing was held out" in card) == (fold == 0)
    assert ("fold 4 of the clips that have folds, 10% of the recording groups" in card) == (fold == 4)
    assert "nan" not in card


def test_a_card_does_not_speak_of_a_fold_where_another_corpus_was_held_out(manifest: Path, tmp_path: Path) -> None:
    """It said: fold 0 of the clips that have folds."""
    recipe = replace(tiny_recipe(1), validation_fold=0)
    finetune(recipe, Place(manifest, validation=manifest), tmp_path / "run", quiet)
    bundle(recipe, tmp_path / "run", used_labels(read_manifest(manifest)), tmp_path / "tiny")
    assert "Held out from training: a corpus of its own." in checkpoint.load(tmp_path / "tiny").card


def test_a_cross_entropy_run_becomes_a_checkpoint_with_softmax_scores(manifest: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(2, loss="cross_entropy", start_at_priors=False, keep="mean", mean_epochs=2, best_by="accuracy")
    run = finetune(recipe, manifest, tmp_path / "run", quiet)
    bundle(recipe, tmp_path / "run", used_labels(read_manifest(manifest)), tmp_path / "tiny")
    saved = checkpoint.load(tmp_path / "tiny")
    assert saved.config.activation == "softmax"
    assert "mean of the last epochs' weights" in saved.card
    assert torch.allclose(saved.network.head.weight, run.mean["head.weight"], atol=1e-3)
    assert "accuracy" in read_log(tmp_path / "run")[-1]


def test_teachers_teach_from_a_checkpoint(manifest: Path, tmp_path: Path) -> None:
    labels = used_labels(read_manifest(manifest))
    teacher = tiny_recipe(1)
    finetune(teacher, manifest, tmp_path / "teacher", quiet)
    bundle(teacher, tmp_path / "teacher", labels, tmp_path / "checkpoint")
    student = tiny_recipe(2, teachers=(str(tmp_path / "checkpoint"),), distil_share=0.8, precision="bfloat16")
    finetune(student, manifest, tmp_path / "student", quiet)
    alone = replace(student, teachers=(), distil_share=0.0)
    finetune(alone, manifest, tmp_path / "alone", quiet)
    assert read_log(tmp_path / "student") != read_log(tmp_path / "alone")


def test_a_second_corpus_validates_and_leaves_the_first_whole(manifest: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    lines: list[str] = []
    finetune(tiny_recipe(1), Place(manifest, validation=write_corpus(other, 4)), tmp_path / "run", lines.append)
    assert "40 clips to train on, 4 to validate, 2 labels" in lines


def test_everything_is_checked_before_a_sound_is_decoded(manifest: Path, tmp_path: Path) -> None:
    """The manifest's files are gone, and still each mistake is found."""
    gone = tmp_path / "manifest.csv"
    gone.write_text(manifest.read_text())
    wrong = [
        (tiny_recipe(backbone="aun"), "unknown backbone 'aun'"),
        (tiny_recipe(backbone_config={**AUM, "widht": 3}), r"backbone_config.widht \(did you mean width"),
        (tiny_recipe(backbone_config={**AUM, "width": "16"}), "backbone_config.width must be of type int, got '16'"),
        (tiny_recipe(backbone_config={**AUM, "width": -16}), "negative dimension"),
        (tiny_recipe(backbone_config={**AUM, "mels": 64}), "the network sees 64 mels, the front end gives 32"),
        (tiny_recipe(backbone_config={**AUM, "frames": 64}), "the network sees 64 frames, the front end gives 32"),
        (tiny_recipe(features={"kind": "fbank"}), "finite number as mean"),
        (tiny_recipe(features={"kind": "fbank", "melz": 3}), "melz"),
        (tiny_recipe(window_seconds=9.0), "longer than the 32 frames"),
        (tiny_recipe(mask_mels=40), "must fit into 32 mels"),
        (tiny_recipe(classes=5), "for 5 classes, the data has 2 labels"),
        (tiny_recipe(initial="nowhere"), "nowhere"),
        (tiny_recipe(teachers=("nobody",), distil_share=0.5), "no model 'nobody'"),
        (tiny_recipe(reading="stream"), "no folder of shards"),
        (tiny_recipe(validation_fold=9), "no fold 9 to validate on, only 1, 4; with validation_fold 0 all"),
    ]
    for recipe, message in wrong:
        with pytest.raises((RecipeError, ManifestError), match=message):
            finetune(recipe, gone, tmp_path / "run", quiet)
    with pytest.raises(ManifestError, match="nothing is held out"):
        finetune(tiny_recipe(keep="best", validation_fold=0), gone, tmp_path / "run", quiet)
    no_classes = tmp_path / "no_classes.csv"
    no_classes.write_text(gone.read_text().replace(",dog\n", ",\n").replace(",rain\n", ",\n"))
    with pytest.raises(ManifestError, match="best_by: esc50_top1, which no validation clip tells"):
        finetune(tiny_recipe(keep="best", best_by="esc50_top1"), no_classes, tmp_path / "run", quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_validation_clip_is_left_out_and_counted_at_the_end(tmp_path: Path, workers: int) -> None:
    """It used to end the run at the first measurement, an epoch after its start, again and again."""
    manifest = write_corpus(tmp_path)
    finetune(tiny_recipe(2), manifest, tmp_path / "whole", quiet)
    (tmp_path / "5.wav").write_bytes(b"RIFF but no sound")
    lines: list[str] = []
    finetune(tiny_recipe(2, reading="files", workers=workers), manifest, tmp_path / "files", lines.append)
    assert sum("5.wav" in line for line in lines) == 1
    assert lines[-1] == "1 of 40 clips could not be read"
    assert read_log(tmp_path / "files")[0]["loss"] == read_log(tmp_path / "whole")[0]["loss"]
    with pytest.raises(ManifestError, match=r"5\.wav cannot be read"):
        finetune(tiny_recipe(2, reading="files", on_bad_file="stop"), manifest, tmp_path / "stop", quiet)


def test_a_corrupt_training_clip_is_counted_at_the_end(tmp_path: Path) -> None:
    """What turns up while training was named, yet never counted."""
    manifest = write_corpus(tmp_path)
    for clip in (1, 2):
        (tmp_path / f"{clip}.wav").write_bytes(b"RIFF but no sound")
    lines: list[str] = []
    finetune(tiny_recipe(3, reading="files", sampling="shuffle"), manifest, tmp_path / "run", lines.append)
    assert lines[-1] == "2 of 40 clips could not be read"


@pytest.mark.parametrize("reading", ["memory", "files"])
def test_validation_without_a_readable_clip_cannot_be_watched(tmp_path: Path, reading: str) -> None:
    """The run went on to its end, and then there were no best weights to make a checkpoint of."""
    manifest = write_corpus(tmp_path)
    for clip in range(0, 40, 5):
        (tmp_path / f"{clip}.wav").write_bytes(b"RIFF but no sound")
    with pytest.raises(ManifestError, match=r"nothing is held out|no validation clip that can be read tells map"):
        finetune(tiny_recipe(2, keep="best", reading=reading), manifest, tmp_path / "best", quiet)
    assert finetune(tiny_recipe(1, reading=reading), manifest, tmp_path / "averaged", quiet).measured == {}


def test_a_head_that_comes_with_the_weights_keeps_its_bias(manifest: Path, tmp_path: Path) -> None:
    finetune(tiny_recipe(1), manifest, tmp_path / "first", quiet)
    trained = read_state(tmp_path / "first")["average"]["head.bias"]
    second = tiny_recipe(1, initial=str(tmp_path / "first"), learning_rate=1e-12)
    assert torch.equal(finetune(second, manifest, tmp_path / "second", quiet).network.head.bias, trained)


def test_heads_start_at_the_labels_frequencies() -> None:
    network = build_network("aum", {**AUM, "classes": 2})
    start_at_priors(network, torch.tensor([0.25, 0.0]))
    assert network.head.bias.sigmoid().tolist() == pytest.approx([0.25, 1e-4])
