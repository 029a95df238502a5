"""All measures of predictions, per label and over all, and what is undefined is left out or None."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from model.training.evaluate import evaluate, to_rows
from tests.model.training.judged import DOG, RAIN, predictions


def test_labels_are_measured_at_their_own_thresholds_as_scikit_learn_does() -> None:
    random = np.random.default_rng(0)
    scores, truth = random.random((60, 3)), random.random((60, 3)) < 0.3
    evaluation = evaluate(predictions(scores, truth, thresholds={DOG: 0.2}))
    assert [row.threshold for row in evaluation.labels] == [0.2, 0.5, 0.5]
    heard = scores.astype(np.float32) >= np.array([0.2, 0.5, 0.5])
    expected = precision_recall_fscore_support(truth, heard, zero_division=0.0)
    for name, values in zip(("precision", "recall", "f1", "clips"), expected, strict=True):
        np.testing.assert_allclose([getattr(row, name) for row in evaluation.labels], values)
    assert evaluation.measures["f1"] == pytest.approx(expected[2].mean())


def test_accuracy_is_measured_only_where_every_clip_has_one_label() -> None:
    scores = [[0.9, 0.1, 0.0], [0.2, 0.6, 0.1], [0.7, 0.6, 0.1]]
    single = evaluate(predictions(scores, [[1, 0, 0], [0, 1, 0], [0, 1, 0]]))
    assert single.measures["accuracy"] == pytest.approx(2 / 3)
    several = evaluate(predictions(scores, [[1, 0, 0], [1, 1, 0], [0, 1, 0]]))
    assert "accuracy" not in several.measures
    assert several.measures["best_label_right"] == pytest.approx(2 / 3)


def test_labels_without_clips_are_named_and_count_in_no_mean() -> None:
    evaluation = evaluate(predictions([[0.9, 0.1, 0.8], [0.2, 0.6, 0.9]], [[1, 0, 0], [0, 1, 0]]))
    assert evaluation.absent == ("Speech",)
    assert evaluation.measures["map"] == 1.0
    assert evaluation.measures["d_prime"] == math.inf
    assert "esc50_top1" not in evaluation.measures


def test_everything_becomes_json_without_nan_or_infinity() -> None:
    evaluation = evaluate(predictions([[0.9, 0.1, 0.8], [0.2, 0.6, 0.9]], [[1, 0, 0], [0, 1, 0]]))
    rows = to_rows(evaluation)
    text = json.dumps(rows, allow_nan=False)
    assert rows["measures"]["d_prime"] is None
    assert rows["labels"][2]["average_precision"] is None
    assert rows["labels"][1]["mid"] == RAIN
    assert rows["absent_labels"] == ["Speech"]
    assert json.loads(text)["calibration"]["every_score"][9]["count"] == 2
