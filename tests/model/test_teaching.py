"""Teaching: the head is the penalised optimum, the left-out scores are what refitting gives, the verdict is right."""

import numpy as np
import pytest

from model.teaching import (
    Clip,
    TeachingError,
    _minimise,
    _sigmoid,
    _thin,
    average_precision,
    best_threshold,
    judge,
    teach,
)


def cloud(
    centre: float, clips: int, seed: int, origin: str = "others", width: int = 24, windows: int = 2
) -> list[Clip]:
    """Clips around a place in the first direction, spread by 1 in every direction, far from the origin."""
    rng = np.random.default_rng(seed)
    shift = np.eye(1, width)[0] * centre + 50
    return [Clip((rng.normal(size=(windows, width)) + shift).astype(np.float32), origin) for _ in range(clips)]


def test_a_class_far_from_the_others_is_told_apart() -> None:
    head, quality = teach(cloud(12, 6, 1), cloud(0, 40, 2))
    assert quality.told_apart
    assert quality.average_precision == quality.recall == quality.precision == 1
    assert (quality.clips, quality.negatives) == (6, 40)
    fresh, others = cloud(12, 50, 3), cloud(0, 50, 4)
    assert np.mean([_sigmoid(head.logits(clip.embeddings)).max() >= quality.threshold for clip in fresh]) > 0.95
    assert np.mean([_sigmoid(head.logits(clip.embeddings)).max() >= quality.threshold for clip in others]) < 0.05


def test_scores_are_calibrated() -> None:
    """Before, the balanced loss left sounds that are not of the class at 0.3, above most labels of the network."""
    head, _ = teach(cloud(6, 8, 1), cloud(0, 60, 2))
    others, inside = (_sigmoid(head.logits(np.concatenate([c.embeddings for c in cloud(at, 100, 3)]))) for at in (0, 6))
    assert np.median(others) < 0.1
    assert np.median(inside) > 0.6


def test_a_class_like_the_others_is_not_told_apart() -> None:
    """In-sample scores would call it perfect: in so many directions every clip can be learnt by heart."""
    _, quality = teach(cloud(0, 8, 1, width=200), cloud(0, 40, 2, width=200))
    assert quality.confused_with == "others"
    assert quality.average_precision < 0.5


def test_the_worst_negatives_are_named() -> None:
    negatives = [*cloud(0, 40, 2), *cloud(12, 5, 3, origin="yours")]
    assert teach(cloud(12, 6, 1), negatives)[1].confused_with == "yours"


def test_the_head_is_the_optimum_of_the_penalised_loss() -> None:
    """Checked against scikit-learn on the same standardised embeddings."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    from model.teaching import LEAST_SPREAD, STRENGTH

    positives, negatives = cloud(3, 5, 1, windows=1), cloud(0, 30, 2, windows=1)
    head, _ = teach(positives, negatives)
    embeddings = np.concatenate([clip.embeddings for clip in [*positives, *negatives]]).astype(float)
    spread = embeddings.std(axis=0)
    scale = np.maximum(spread, LEAST_SPREAD * spread.mean()) * np.sqrt(embeddings.shape[1])
    rows, truth = (embeddings - embeddings.mean(axis=0)) / scale, np.arange(35) < 5
    reference = linear_model.LogisticRegression(C=1 / STRENGTH, tol=1e-10, max_iter=10_000)
    reference.fit(rows, truth, sample_weight=np.where(truth, 0.5 / 5, 0.5 / 30))
    expected = rows @ reference.coef_[0] + reference.intercept_[0]
    logits = head.logits(embeddings.astype(np.float32))
    slope, offset = np.polyfit(expected, logits, 1)  # the calibration
    assert slope > 0
    assert logits == pytest.approx(slope * expected + offset, abs=2e-2)


def test_left_out_scores_are_those_of_a_head_that_never_saw_the_clip() -> None:
    """A clip that is like the negatives must not be found when it is left out, however well it is learnt."""
    odd = [*cloud(12, 5, 1), *cloud(0, 1, 9)]
    _, quality = teach(odd, cloud(0, 40, 2))
    assert quality.recall == pytest.approx(5 / 6, abs=1e-3)


@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_the_minimum_is_found_from_afar(scale: float) -> None:
    """Full Newton steps overshoot where the loss is flat, and from there led ever further away."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = np.column_stack([scale * rng.standard_t(2, size=(60, 5)), np.ones(60)])
        truth = (rows[:, 0] + scale * rng.normal(size=60) > 2 * scale).astype(float)
        weights, penalty = rng.dirichlet(np.ones(60)), np.array([0.03] * 5 + [1e-9])
        solution = _minimise(rows, truth, weights, penalty, np.full(6, 30 / scale))
        gradient = rows.T @ (weights * (_sigmoid(rows @ solution) - truth)) + penalty * solution
        assert np.abs(gradient).max() < 1e-4 * max(1, scale)


def test_long_clips_do_not_outvote_short_ones() -> None:
    short, long = cloud(12, 5, 1, windows=1), cloud(-12, 1, 2, windows=200)
    others = cloud(0, 40, 3)
    head, _ = teach([*short, *long], others)
    means = [np.mean([head.logits(clip.embeddings).mean() for clip in clips]) for clips in (short, others, long)]
    assert means[0] > means[1] > means[2]


def test_many_long_clips_are_thinned_evenly() -> None:
    """A hundred clips of a minute took two minutes to judge."""
    long = Clip(np.arange(100, dtype=np.float32)[:, None], "others")
    thinned = _thin([long] * 100)
    assert [clip.embeddings[:, 0].tolist() for clip in thinned] == [[0, 50, 99]] * 100
    assert thinned[0].origin == "others"
    assert len(_thin([long])[0].embeddings) == 100


@pytest.mark.parametrize(
    ("positives", "negatives", "part"),
    [
        (cloud(1, 1, 1), cloud(0, 3, 2), "at least two clips"),
        (cloud(1, 3, 1), [], "one clip without it"),
        ([Clip(np.full((1, 4), np.nan, np.float32))] * 2, [Clip(np.ones((1, 4), np.float32))], "not finite"),
        ([Clip(np.ones((1, 4), np.float32))] * 2, [Clip(np.ones((1, 4), np.float32))], "no difference"),
    ],
)
def test_clips_that_teach_nothing(positives: list[Clip], negatives: list[Clip], part: str) -> None:
    with pytest.raises(TeachingError, match=part):
        teach(positives, negatives)


def test_average_precision_counts_ties_against_the_class() -> None:
    assert average_precision(np.array([0.9, 0.8]), np.array([0.1])) == 1
    assert average_precision(np.array([0.9, 0.2]), np.array([0.5])) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.array([0.5]), np.array([0.5])) == 0.5


@pytest.mark.parametrize(
    ("inside", "outside", "expected"),
    [([0.9, 0.7], [0.1, 0.3], 0.5), ([1.0, 1.0], [0.99], 0.95), ([0.02], [0.01], 0.05), ([0.5], [0.5], 0.5)],
)
def test_the_threshold_lies_in_the_gap(inside: list[float], outside: list[float], expected: float) -> None:
    assert best_threshold(np.array(inside), np.array(outside)) == pytest.approx(expected)


def test_clips_of_one_score_are_not_told_apart() -> None:
    assert not judge(np.full(8, 0.5), 4, ["others"] * 4).told_apart


def test_a_copy_of_a_clip_is_left_out_with_it() -> None:
    """One clip sent three times was "told apart, 100 %": its copies stayed in when it was left out."""
    others = cloud(0, 40, 2, width=200)
    [once, twice] = cloud(0, 2, 1, width=200)
    copies = [Clip(once.embeddings + np.float32(1e-5) * place) for place in range(3)]
    with pytest.raises(TeachingError, match="all the same sound; send different recordings"):
        teach(copies, others)
    assert not teach([*copies, twice], others)[1].told_apart
