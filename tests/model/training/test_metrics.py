"""Metrics equal scikit-learn's and the golden case."""

import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, roc_auc_score

from model.training.clips import Clip
from model.training.metrics import (
    accuracy,
    average_precision,
    best_label_calibration,
    best_label_right,
    calibration,
    d_prime,
    esc50_top1,
    mean_average_precision,
    mean_roc_auc,
    per_class,
    precision_recall,
    roc_auc,
)

FIXTURES = Path(__file__).parents[2] / "fixtures"


def test_the_golden_case() -> None:
    golden = load_file(FIXTURES / "metrics.safetensors")
    scores, truth = golden["predictions"], golden["targets"]
    np.testing.assert_allclose(per_class(average_precision, scores, truth), golden["AP"], rtol=1e-9)
    np.testing.assert_allclose(per_class(roc_auc, scores, truth), golden["AUC"], rtol=1e-9)
    assert mean_average_precision(scores, truth) == pytest.approx(float(golden["mAP"]))
    assert mean_roc_auc(scores, truth) == pytest.approx(float(golden["mAUC"]))
    assert d_prime(mean_roc_auc(scores, truth)) == pytest.approx(float(golden["d_prime"]), rel=1e-6)
    assert accuracy(scores, truth) == pytest.approx(float(golden["accuracy"]))


@pytest.mark.parametrize("decimals", [1, 8])
def test_ranking_equals_scikit_learn_with_and_without_ties(decimals: int) -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        scores = random.random(50).round(decimals)
        positive = random.random(50) < 0.3
        positive[0] = True
        assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores))
        assert roc_auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
        curve = precision_recall(scores, positive)
        precision, recall, thresholds = precision_recall_curve(positive, scores)
        np.testing.assert_allclose(curve.precision, precision[:-1][::-1])
        np.testing.assert_allclose(curve.recall, recall[:-1][::-1])
        np.testing.assert_allclose(curve.scores, thresholds[::-1])
        chosen = len(curve.scores) // 2
        assert curve.f1[chosen] == pytest.approx(f1_score(positive, scores >= curve.scores[chosen]))


def test_the_macro_means_equal_scikit_learns() -> None:
    random = np.random.default_rng(1)
    scores, truth = random.random((80, 6)), random.random((80, 6)) < 0.2
    assert mean_average_precision(scores, truth) == pytest.approx(average_precision_score(truth, scores))
    assert mean_roc_auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))


def test_classes_where_a_measure_is_undefined_do_not_count() -> None:
    truth = np.array([[1, 0, 1], [0, 0, 1]])
    scores = np.array([[0.9, 0.1, 0.5], [0.1, 0.2, 0.4]])
    assert mean_average_precision(scores, truth) == 1.0
    assert mean_roc_auc(scores, truth) == 1.0  # nor the last, which has no negative
    assert math.isnan(mean_average_precision(scores, truth * 0))
    assert math.isnan(mean_roc_auc(scores, truth * 0))
    with pytest.raises(ValueError, match="needs a positive"):
        precision_recall(scores[:, 1], truth[:, 1])


def test_d_prime_of_a_perfect_ranking_is_infinite() -> None:
    """It raised, so that evaluating a perfect network failed."""
    assert d_prime(1.0) == math.inf
    assert d_prime(0.0) == -math.inf
    assert d_prime(0.5) == pytest.approx(0)
    assert math.isnan(d_prime(math.nan))


def test_calibration_bins_equal_scikit_learns_and_weigh_the_error_by_their_counts() -> None:
    random = np.random.default_rng(2)
    scores = random.random(500)
    right = random.random(500) < scores**2
    measured = calibration(scores, right)
    share_right, mean_score = calibration_curve(right, scores, n_bins=10)
    np.testing.assert_allclose(measured.share_right, share_right)
    np.testing.assert_allclose(measured.mean_score, mean_score)
    expected = (np.abs(share_right - mean_score) * measured.counts).sum() / 500
    assert measured.error == pytest.approx(expected)


def test_a_score_of_one_falls_into_the_last_bin_and_empty_bins_do_not_count() -> None:
    measured = calibration(np.array([0.0, 1.0, 1.0]), np.array([0, 1, 0]))
    assert measured.counts.tolist() == [1, *[0] * 8, 2]
    assert math.isnan(measured.mean_score[4])
    assert measured.error == pytest.approx(2 / 3 * 0.5)
    assert math.isnan(calibration(np.zeros(0), np.zeros(0)).error)


def test_the_best_label_may_be_any_of_the_clips() -> None:
    scores = np.array([[0.8, 0.2], [0.3, 0.6], [0.9, 0.1]])
    truth = np.array([[1, 1], [1, 0], [0, 0]])  # the last has no label, so nothing about it can be right
    assert best_label_right(scores, truth) == 0.5
    assert best_label_calibration(scores, truth).counts.sum() == 2
    assert math.isnan(best_label_right(scores, truth * 0))


def test_top1_compares_only_the_data_sets_own_classes() -> None:
    mids = ["/m/speech", "/m/dog", "/m/rain"]
    clips = [
        Clip(Path("a"), ("/m/dog",), "a", 4, "dog"),
        Clip(Path("b"), ("/m/rain",), "b", 4, "rain"),
        Clip(Path("c"), ("/m/speech",), "c", None, ""),
        Clip(Path("d"), ("/m/rain",), "d", 4, "washing_machine"),
    ]
    scores = np.array([[0.9, 0.5, 0.1], [0.9, 0.6, 0.2], [0, 0, 0], [0, 0, 0]])
    assert esc50_top1(scores, clips, mids) == 0.5
    assert math.isnan(esc50_top1(scores[2:3], clips[2:3], mids))


def test_a_clip_of_esc50_without_labels_does_not_count() -> None:
    """A manifest may name a category and no label: that was an IndexError."""
    clips = [Clip(Path("a"), ("/m/dog",), "a", 4, "dog"), Clip(Path("b"), (), "b", 4, "rain")]
    assert esc50_top1(np.array([[0.9], [0.1]]), clips, ["/m/dog"]) == 1
