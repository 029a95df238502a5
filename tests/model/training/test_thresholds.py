"""Fitted thresholds: best where there is much to go by, careful where there is little, stored, and heard by events."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from model import checkpoint
from model.checkpoint import CONFIG
from model.pipeline import tag
from model.training.predictions import Predictions
from model.training.thresholds import describe_fit, fit_thresholds, split_half_gain, store_thresholds
from tests.model.training.judged import DOG, RAIN, SPEECH, predictions, save_checkpoint


def drawn(positives: int, clips: int = 400, seed: int = 0) -> Predictions:
    """Scores of a network that is too modest: dogs score around 0.3, other clips around 0.1; rain is heard well."""
    random = np.random.default_rng(seed)
    truth = np.zeros((clips, 3), bool)
    truth[:positives, 0] = True
    truth[clips // 2 :, 1] = True
    scores = np.clip(random.normal(0.1, 0.03, truth.shape) + 0.2 * truth + 0.5 * truth * [0, 1, 0], 0, 1)
    return predictions(scores, truth)


def test_a_group_that_is_no_text_can_be_divided() -> None:
    """A path that is not UTF-8 ended `hark fit-thresholds` after all clips were scored."""
    scored = drawn(150)
    named = [replace(clip, split_group=f"caf\udce9 {clip.split_group}") for clip in scored.clips]
    assert split_half_gain(replace(scored, clips=named)).measured


def test_a_class_with_many_clips_gets_the_threshold_that_separates_it() -> None:
    thresholds = fit_thresholds(drawn(150)).per_class
    assert 0.15 < thresholds[DOG] < 0.25
    assert 0.15 < thresholds[RAIN] < 0.75


def test_a_class_with_few_clips_stays_near_the_common_threshold_and_one_without_gets_none() -> None:
    truth = np.zeros((60, 3))
    truth[:30, 0] = truth[30:32, 1] = 1
    scores = np.where(truth > 0, 0.8, 0.1)
    scores[30:32, 1] = 0.99
    scores[:30, 1] = 0.9
    fitted = fit_thresholds(predictions(scores, truth))
    assert fitted.per_class[RAIN] == pytest.approx(fitted.common, abs=1e-4)  # its own would be above 0.9
    assert fitted.without_clips == ("Speech",)
    assert SPEECH not in fitted.per_class


def test_the_common_threshold_has_the_best_mean_f1_of_all_that_were_tried() -> None:
    found = drawn(20, clips=100)
    common = fit_thresholds(found).common
    tried = {
        threshold: np.mean([f1_score(found.truth[:, c], found.scores[:, c] >= threshold) for c in (0, 1)])
        for threshold in np.arange(0.02, 0.99, 0.02)
    }
    assert tried[common] == max(tried.values())


def test_a_chosen_precision_is_reached_where_clips_are_many() -> None:
    random = np.random.default_rng(3)
    truth = random.random((4000, 1)) < 0.3
    scores = np.clip(random.normal(0.3, 0.15, truth.shape) + 0.25 * truth, 0, 1)
    found = predictions(scores, truth, mids=(DOG,))
    heard = found.scores[:, 0] >= fit_thresholds(found, precision=0.9).per_class[DOG]
    assert truth[heard, 0].mean() == pytest.approx(0.9, abs=0.01)


def test_a_precision_that_is_never_reached_is_said_and_keeps_the_common_threshold() -> None:
    scores = np.zeros((40, 2))
    truth = np.zeros((40, 2))
    truth[:20, 0] = 1
    scores[:20, 0] = 0.8
    truth[20:, 1] = 1
    scores[:, 1] = np.where(np.arange(40) < 20, 0.6, 0.4)  # rain scores lower than what is no rain
    fitted = fit_thresholds(predictions(scores, truth, mids=(DOG, RAIN)), precision=0.95)
    assert fitted.unreached == ("Rain",)
    assert fitted.per_class[RAIN] == pytest.approx(fitted.common, abs=1e-4)


@pytest.mark.parametrize("precision", [0, 1.5, -1, float("nan")])
def test_an_impossible_precision_is_refused(precision: float) -> None:
    with pytest.raises(ValueError, match="precision must be above 0 and at most 1"):
        fit_thresholds(drawn(10), precision)


def test_the_gain_is_measured_on_clips_that_were_not_fitted_on() -> None:
    """Scores that say nothing about the truth gain nothing, though a fit to the same clips would seem to."""
    random = np.random.default_rng(0)
    truth = random.random((60, 3)) < 0.1
    nothing = predictions(random.random(truth.shape), truth)
    gain = split_half_gain(nothing)
    assert gain.fitted["f1"] < 0.35
    modest = split_half_gain(drawn(150))
    assert modest.default["f1"] < 0.55
    assert modest.fitted["f1"] > 0.95


def test_clips_without_labels_or_of_one_recording_gain_nothing_that_could_be_measured() -> None:
    nothing = predictions([[0.1, 0.2, 0.3]] * 4, [[0, 0, 0]] * 4)
    fitted = fit_thresholds(nothing)
    assert (fitted.per_class, fitted.without_clips) == ({}, ("Dog", "Rain", "Speech"))
    assert not split_half_gain(nothing).measured
    whole = drawn(150)
    one_group = replace(whole, clips=[replace(clip, split_group="same") for clip in whole.clips])
    gain = split_half_gain(one_group, 0.9)
    assert not gain.measured
    note = describe_fit(fit_thresholds(one_group), gain, "manifest.csv", 400)
    assert "not measured" in note
    assert "nan" not in note


def test_stored_thresholds_change_events_and_nothing_else(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "tiny")
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32)
    before = tag(waveform, checkpoint.load(folder))
    peak = before.scores[:, 0].max()
    old = checkpoint.load(folder)
    store_thresholds(folder, {DOG: 0.0001}, "all of it")
    low = checkpoint.load(folder)
    store_thresholds(folder, {DOG: float(min(1, peak + 0.01))}, "none of it")
    high = checkpoint.load(folder)
    assert [event.mid for event in tag(waveform, low).events if event.mid == DOG] == [DOG]
    assert DOG not in [event.mid for event in tag(waveform, high).events]
    assert {old.weights_sha256} == {low.weights_sha256, high.weights_sha256}
    np.testing.assert_array_equal(tag(waveform, high).scores, before.scores)


def test_the_card_tells_of_the_latest_thresholds_and_keeps_its_other_sections(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "tiny")
    (folder / "README.md").write_text("# tiny\n\n## Data\n\nmine\n\n## Thresholds\n\nold\n\n## Labels\n\nthree\n")
    store_thresholds(folder, {DOG: 0.25}, "new")
    card = checkpoint.load(folder).card
    assert card == "# tiny\n\n## Data\n\nmine\n\n## Labels\n\nthree\n\n## Thresholds\n\nnew\n"
    assert not [path for path in folder.iterdir() if path.suffix == ".part"]


def test_a_checkpoint_that_cannot_be_read_is_left_as_it_is(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "tiny")
    (folder / CONFIG).write_text("{}")
    with pytest.raises(checkpoint.NotACheckpointError):
        store_thresholds(folder, {DOG: 0.25}, "new")
    assert (folder / "README.md").read_text() == "# tiny\n"


def test_the_note_says_what_was_fitted_on_what() -> None:
    found = drawn(150)
    fitted = fit_thresholds(found, 0.9)
    note = describe_fit(fitted, split_half_gain(found, 0.9), "manifest.csv fold 4", 400, 0.9)
    assert note.startswith("2 labels have their own threshold, fitted for the most recall at a precision of 0.9 on 400")
    assert "| f1 |" in note
