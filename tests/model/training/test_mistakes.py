"""The worst mistakes are those of the highest loss, a parent label is none, and their sound can be cut out."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.training.clips import Clip
from model.training.mistakes import confusions, excerpt, worst_mistakes
from tests.model.training.judged import DOG, RAIN, SPEECH, predictions

ANIMAL = "/m/0jbk"


def test_the_worst_come_first_with_their_loss_and_place() -> None:
    found = predictions([[0.1, 0.6, 0.0], [0.01, 0.9, 0.0], [0.7, 0.2, 0.0]], [[1, 0, 0], [1, 0, 0], [1, 0, 0]])
    found = replace(found, loudest_seconds=np.full((3, 3), 1.2, np.float32))
    misses = worst_mistakes(found, "miss")
    assert [(m.row, m.label) for m in misses] == [(1, "Dog"), (0, "Dog")]
    assert misses[0].loss == pytest.approx(-np.log(0.01), rel=1e-4)
    assert misses[0].start_seconds == pytest.approx(1.2)
    alarms = worst_mistakes(found, "false alarm")
    assert [(m.row, m.label, round(m.score, 2)) for m in alarms] == [(1, "Rain", 0.9), (0, "Rain", 0.6)]
    assert len(worst_mistakes(found, "miss", most=1)) == 1


def test_scores_of_exactly_0_and_1_have_a_finite_loss() -> None:
    found = predictions([[0.0, 1.0, 0.0]], [[1, 0, 0]])
    assert np.isfinite([worst_mistakes(found, kind)[0].loss for kind in ("miss", "false alarm")]).all()


def test_no_label_fills_the_list_alone() -> None:
    scores = np.tile([0.99, 0.6, 0.0], (5, 1))
    alarms = worst_mistakes(predictions(scores, np.tile([0, 0, 1], (5, 1))), "false alarm")
    assert [mistake.label for mistake in alarms] == ["Dog"] * 3 + ["Rain"] * 3


def test_the_labels_own_threshold_decides_what_is_a_mistake() -> None:
    found = predictions([[0.3, 0.0, 0.0]], [[1, 0, 0]], thresholds={DOG: 0.2})
    assert worst_mistakes(found, "miss") == []
    assert len(worst_mistakes(replace(found, thresholds={}), "miss")) == 1


def test_a_label_above_the_clips_own_is_neither_false_alarm_nor_confusion() -> None:
    found = predictions([[0.5, 0.9, 0.1]], [[1, 0, 0]], mids=(DOG, ANIMAL, RAIN))
    assert worst_mistakes(found, "false alarm") == []
    assert confusions(found) == []


def test_confusions_count_pairs_of_label_and_best_score() -> None:
    scores = [[0.1, 0.9, 0.0], [0.1, 0.8, 0.0], [0.9, 0.0, 0.1], [0.0, 0.1, 0.2], [0.9, 0.0, 0.0]]
    truth = [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0]]
    found = [(pair.label, pair.heard, pair.clips) for pair in confusions(predictions(scores, truth))]
    assert found == [("Dog", "Rain", 2), ("Rain", "Speech", 1)]


def test_an_excerpt_is_a_short_ogg_of_the_window(tmp_path: Path) -> None:
    seconds = np.arange(30 * 44100) / 44100
    waveform = np.where(seconds < 10, 0, 0.8 * np.sin(2 * np.pi * 440 * seconds))
    soundfile.write(tmp_path / "clip.wav", np.stack([waveform, waveform], axis=1), 44100)
    clip = Clip(tmp_path / "clip.wav", (SPEECH,), "a", None, "")
    sound = excerpt(clip, start_seconds=12.0, seconds=60.0)
    assert sound is not None
    heard, rate = soundfile.read(io.BytesIO(sound))
    assert rate == 16000
    assert heard.shape == (160_000,)
    assert np.abs(heard).max() > 0.5
    assert len(sound) < 150_000
    silence = excerpt(clip, start_seconds=0.0, seconds=5.0)
    assert silence is not None
    assert np.abs(soundfile.read(io.BytesIO(silence))[0]).max() < 0.01


def test_a_clip_that_is_gone_has_no_excerpt(tmp_path: Path) -> None:
    assert excerpt(Clip(tmp_path / "gone.wav", (SPEECH,), "a", None, ""), 0.0, 5.0) is None
