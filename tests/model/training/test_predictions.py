"""Clips → scores: as the pipeline hears them, with what cannot be read or is unknown said and left out."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.labels import LabelSet
from model.pipeline import tag
from model.training.clips import Clip, ManifestError
from model.training.data import read_manifest
from model.training.predictions import choose_clips, ensemble, known_labels, predict
from tests.model.training.judged import DOG, RAIN, SPEECH, load_tiny, predictions, save_corpus


def test_a_clip_scores_as_in_its_loudest_window_like_the_pipeline(tmp_path: Path) -> None:
    """Clips of 0.7 s are four windows of 0.3 s; batches of three windows mix windows of several clips."""
    checkpoint = load_tiny(tmp_path / "tiny")
    clips = read_manifest(save_corpus(tmp_path / "clips"))
    found = predict(checkpoint, clips, batch_windows=3)
    for row, clip in enumerate(found.clips):
        tagging = tag(clip.file, checkpoint)
        np.testing.assert_allclose(found.scores[row], tagging.scores.max(0), atol=1e-5)
        loudest = [tagging.windows[index].start_seconds for index in tagging.scores.argmax(0)]
        np.testing.assert_allclose(found.loudest_seconds[row], loudest, atol=1e-6)
    assert found.truth.tolist()[:3] == [[True, False, False], [False, True, False], [True, True, False]]


def test_unreadable_clips_are_named_counted_and_left_out(tmp_path: Path) -> None:
    manifest = save_corpus(tmp_path / "clips", clips=4)
    (tmp_path / "clips" / "1.wav").unlink()
    (tmp_path / "clips" / "2.wav").write_bytes(b"no sound")
    said: list[str] = []
    advanced: list[int] = []
    found = predict(
        load_tiny(tmp_path / "tiny"), read_manifest(manifest), report=said.append, advance=lambda: advanced.append(1)
    )
    assert [clip.file.name for clip in found.clips] == ["0.wav", "3.wav"]
    assert len(found.scores) == len(found.truth) == 2
    assert said[-1] == "2 of 4 clips could not be read"
    assert "1.wav" in said[0]
    assert len(found.unreadable) == 2
    assert len(advanced) == 4


def test_strict_stops_at_the_first_clip_that_cannot_be_read(tmp_path: Path) -> None:
    manifest = save_corpus(tmp_path / "clips", clips=4)
    (tmp_path / "clips" / "2.wav").unlink()
    with pytest.raises(ManifestError, match=r"2\.wav"):
        predict(load_tiny(tmp_path / "tiny"), read_manifest(manifest), strict=True)


def test_a_corpus_with_nothing_to_measure_is_refused(tmp_path: Path) -> None:
    checkpoint = load_tiny(tmp_path / "tiny")
    missing = Clip(tmp_path / "gone.wav", (DOG,), "a", None, "")
    with pytest.raises(ManifestError, match="none of the clips can be read"):
        predict(checkpoint, [missing], report=lambda _: None)
    strange = Clip(tmp_path / "gone.wav", ("/m/unknown",), "a", None, "")
    with pytest.raises(ManifestError, match="no clip has a label that the checkpoint knows"):
        predict(checkpoint, [strange], report=lambda _: None)


def test_labels_that_the_checkpoint_does_not_know_are_said_and_do_not_count(tmp_path: Path) -> None:
    manifest = save_corpus(tmp_path / "clips", clips=3)
    manifest.write_text(manifest.read_text().replace(RAIN, "/m/unknown"))
    said: list[str] = []
    found = predict(load_tiny(tmp_path / "tiny"), read_manifest(manifest), report=said.append)
    assert said == ["1 labels of the manifest are not the checkpoint's and do not count: /m/unknown"]
    assert found.truth.tolist() == [[True, False, False], [False, False, False], [True, False, False]]


def test_an_ensemble_is_the_mean_of_scores_of_the_same_labels_and_clips() -> None:
    truth = [[1, 0, 0], [0, 1, 0]]
    first = predictions([[0.8, 0.2, 0.0], [0.4, 0.4, 0.0]], truth, thresholds={DOG: 0.3})
    second = predictions([[0.4, 0.0, 0.2], [0.0, 0.8, 0.0]], truth)
    together = ensemble([first, second])
    np.testing.assert_allclose(together.scores, [[0.6, 0.1, 0.1], [0.2, 0.6, 0.0]], atol=1e-6)
    assert together.thresholds == {}
    with pytest.raises(ValueError, match="different labels"):
        ensemble([first, predictions(second.scores, truth, mids=(RAIN, DOG, SPEECH))])
    with pytest.raises(ValueError, match="different clips"):
        ensemble([first, second.take([0])])


def _clip(name: str, fold: int | None, part: str = "") -> Clip:
    return Clip(Path(name), (DOG,), name, fold, "", part)


def test_clips_are_chosen_by_fold_or_as_training_splits_them() -> None:
    clips = [_clip("a", 1), _clip("b", 4), _clip("c", 2), _clip("t", None, "testing")]

    def names(fold: int | None = None, part: str | None = None) -> str:
        return "".join(clip.file.name for clip in choose_clips(clips, fold, part))

    assert names() == "abct"
    assert names(fold=2) == "c"
    assert names(part="validation") == "b"
    assert names(fold=1, part="validation") == "a"
    assert names(part="training") == "ac"
    assert names(part="testing") == "t"
    with pytest.raises(ManifestError, match="its folds are: 1, 2, 4"):
        names(fold=9)


def test_clips_of_which_none_with_a_label_can_be_read_are_an_error(tmp_path: Path) -> None:
    """Measures without meaning were printed, and the report then failed for want of a positive."""
    manifest = save_corpus(tmp_path / "clips", clips=2)
    clips = read_manifest(manifest)
    clips = [replace(clips[0], mids=()), replace(clips[1], file=tmp_path / "gone.wav")]
    with pytest.raises(ManifestError, match="no clip that can be read has a label"):
        predict(load_tiny(tmp_path / "tiny"), clips, report=lambda line: None)


def test_a_category_goes_with_the_label_that_it_stands_for() -> None:
    """With only unknown labels it was an IndexError; with a parent known, the parent passed for ESC-50's class."""
    labels = LabelSet.from_mids([DOG, RAIN])
    clips = [Clip(Path(f"{i}"), mids, "", 4, "x") for i, mids in enumerate([(SPEECH,), (SPEECH, RAIN), (DOG, SPEECH)])]
    kept = known_labels(clips, labels, lambda line: None)
    assert [(clip.mids, clip.category) for clip in kept] == [((), ""), ((RAIN,), ""), ((DOG,), "x")]


def test_a_network_that_overflows_is_told_with_the_clip(tmp_path: Path) -> None:
    """ "Logits must be finite numbers." ended hours of scoring without saying which sound to look at."""
    checkpoint = load_tiny(tmp_path / "tiny")
    clips = read_manifest(save_corpus(tmp_path / "clips", clips=1))
    with torch.no_grad():
        for parameter in checkpoint.network.parameters():
            parameter.mul_(math.nan)
    with pytest.raises(ValueError, match=r"tiny does not give finite numbers for .*0\.wav"):
        predict(checkpoint, clips)
