"""Sampling weights equal AST's published formula and the first recipes' rarity."""

from pathlib import Path
from typing import Any

import pytest
import torch

from model.labels import LabelSet
from model.training.clips import Clip, ManifestError
from model.training.data import targets
from model.training.sampling import draw, label_counts, sampling_weights

LABELS = LabelSet.from_mids(["a", "b", "c"])


def _clips(*mids: tuple[str, ...]) -> list[Clip]:
    return [Clip(Path(f"{number}.wav"), labels, "", None, "") for number, labels in enumerate(mids)]


CLIPS = _clips(*[("a",)] * 8, ("a", "b"), ("b",), ())


def test_counts_are_of_clips_per_label() -> None:
    assert label_counts(CLIPS, LABELS).tolist() == [9, 2, 0]


def test_class_balanced_weights_are_asts() -> None:
    """Class weight 1000 / (count + 0.01), a clip's weight is the sum over its labels."""
    weights = sampling_weights(CLIPS, LABELS, "class_balanced")
    assert weights is not None
    a, b = 1000 / 9.01, 1000 / 2.01
    assert weights.tolist() == pytest.approx([a] * 8 + [a + b, b, 0])


def test_rarity_weights_are_those_of_the_first_recipes() -> None:
    """Bit for bit: the bundled model's recipe draws by them."""
    wanted = targets(CLIPS, LABELS)
    rarity = 1 / wanted.sum(0).clamp(min=1).sqrt()
    expected = (wanted * rarity).amax(1).clamp(min=float(rarity.min()))
    weights = sampling_weights(CLIPS, LABELS, "rarity")
    assert weights is not None
    assert weights.dtype == expected.dtype
    assert torch.equal(weights, expected)


def test_clips_without_any_labels_are_all_alike() -> None:
    weights = sampling_weights(_clips((), ()), LabelSet(()), "rarity")
    assert weights is not None
    assert weights.tolist() == [1, 1]


def test_balanced_draws_even_the_classes_out() -> None:
    clips = _clips(*[("a",)] * 900, *[("b",)] * 100)
    weights = sampling_weights(clips, LABELS, "class_balanced")
    order = draw(weights, len(clips), torch.Generator().manual_seed(0))
    assert len(order) == 1000
    assert 450 < int((order >= 900).sum()) < 550


def test_a_shuffle_sees_every_clip_once_and_follows_the_seed() -> None:
    assert sampling_weights(CLIPS, LABELS, "shuffle") is None
    first, again, other = (draw(None, 50, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert sorted(first.tolist()) == list(range(50))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nothing_to_balance_and_another_name_are_refused() -> None:
    with pytest.raises(ManifestError, match="no clip has a label"):
        sampling_weights(_clips((), ()), LABELS, "class_balanced")
    sampling: Any = "balanced"
    with pytest.raises(ValueError, match="one of shuffle, rarity, class_balanced"):
        sampling_weights(CLIPS, LABELS, sampling)
