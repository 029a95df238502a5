"""Metrics equal scikit-learn's and the golden case."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import average_precision_score

from model.training.data import Clip
from model.training.evaluate import (
    accuracy,
    average_precision,
    d_prime,
    esc50_top1,
    mean_average_precision,
    mean_roc_auc,
    roc_auc,
)

FIXTURES = Path(__file__).parents[2] / "fixtures"


def test_the_golden_case() -> None:
    golden = load_file(FIXTURES / "metrics.safetensors")
    scores, truth = golden["predictions"], golden["targets"]
    classes = range(scores.shape[1])
    np.testing.assert_allclose([average_precision(scores[:, c], truth[:, c]) for c in classes], golden["AP"], rtol=1e-9)
    np.testing.assert_allclose([roc_auc(scores[:, c], truth[:, c]) for c in classes], golden["AUC"], rtol=1e-9)
    assert mean_average_precision(scores, truth) == pytest.approx(float(golden["mAP"]))
    assert mean_roc_auc(scores, truth) == pytest.approx(float(golden["mAUC"]))
    assert d_prime(mean_roc_auc(scores, truth)) == pytest.approx(float(golden["d_prime"]), rel=1e-6)
    assert accuracy(scores, truth) == pytest.approx(float(golden["accuracy"]))


def test_average_precision_equals_scikit_learn_with_and_without_ties() -> None:
    random = np.random.default_rng(0)
    for decimals in (1, 8):
        for _ in range(20):
            scores = random.random(50).round(decimals)
            positive = random.random(50) < 0.3
            positive[0] = True
            assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores))


def test_classes_without_positives_do_not_count() -> None:
    truth = np.array([[1, 0], [0, 0]])
    assert mean_average_precision(np.array([[0.9, 0.1], [0.1, 0.2]]), truth) == 1.0


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
