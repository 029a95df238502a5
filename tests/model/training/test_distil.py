"""Teachers hear what the student hears, and answer for the student's labels."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.features import FeatureConfig
from model.labels import LabelSet
from model.training.distil import Teachers, hear, load_teachers
from model.training.losses import Batch
from model.training.recipe import RecipeError
from tests.model.training.tiny_runs import FBANK, LABELS, save_teacher, tiny_recipe

MORE = LabelSet.from_mids(["/m/0bt9lr", "/m/09x0r", "/m/06mb1"])


def _batch(features: torch.nn.Module) -> Batch:
    waveforms, lengths = torch.randn(3, 4800) * 0.1, torch.tensor([4800, 4800, 2400])
    log_mel = features(waveforms, lengths)
    return Batch(log_mel, torch.zeros(3, 2), waveforms, lengths, torch.zeros_like(log_mel, dtype=torch.bool))


def test_scores_are_the_mean_of_the_teachers_for_the_students_labels(tmp_path: Path) -> None:
    teachers = [save_teacher(tmp_path / "a", LABELS), save_teacher(tmp_path / "b", MORE, seed=1)]
    batch = _batch(teachers[0].features)
    taught = Teachers(teachers, LABELS, teachers[0].config.features).teach(batch)
    first, second = teachers[0].network(batch.log_mel), teachers[1].network(batch.log_mel)[:, [2, 0]]
    assert torch.allclose(taught.scores, (first.sigmoid() + second.sigmoid()) / 2)
    assert torch.allclose(taught.shares, (first.softmax(1) + second.softmax(1)) / 2)
    assert not taught.scores.requires_grad


def test_a_teacher_with_another_front_end_hears_the_same_sound_with_the_same_masks(tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "a", LABELS, mels=16, frames=30)
    own = save_teacher(tmp_path / "b", LABELS)
    batch = _batch(own.features)
    assert torch.allclose(hear(teacher, batch), teacher.features(batch.waveforms, batch.lengths))
    hidden = torch.zeros(3, 32, 32, dtype=torch.bool)
    hidden[:, :16], hidden[:, :, 16:] = True, True
    masked = hear(teacher, batch._replace(hidden=hidden))
    filled = teacher.features.normalise(torch.zeros(1, 30, 16))[0, 0, 0]
    assert torch.equal(masked[:2, :15], torch.full((2, 15, 16), float(filled)))
    assert torch.equal(masked[:2, :, 8:], torch.full((2, 30, 8), float(filled)))
    assert (masked[:2, 16:28, :8] != filled).all()


def test_teachers_that_cannot_teach_this_are_refused(tmp_path: Path) -> None:
    save_teacher(tmp_path / "few", LabelSet.from_mids(["/m/0bt9lr"]))
    save_teacher(tmp_path / "good", LABELS)
    recipe = tiny_recipe(distil_share=0.5, teachers=(str(tmp_path / "good"),))
    front = FeatureConfig(**FBANK)
    assert load_teachers(recipe, LABELS, front, "cpu") is not None
    assert load_teachers(tiny_recipe(), LABELS, front, "cpu") is None
    wrong = [
        (replace(recipe, teachers=(str(tmp_path / "few"),)), "does not know the labels /m/06mb1"),
        (replace(recipe, teachers=("nobody",)), "no model 'nobody'"),
        (replace(recipe, window_seconds=1.0), "windows of 0.3 s"),
    ]
    for other, message in wrong:
        with pytest.raises(RecipeError, match=message):
            load_teachers(other, LABELS, front, "cpu")
    with pytest.raises(RecipeError, match="another front end"):
        load_teachers(replace(recipe, spectrogram_noise=True), LABELS, FeatureConfig(**{**FBANK, "mean": 0.0}), "cpu")
