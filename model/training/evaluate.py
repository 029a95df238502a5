"""Predictions → how good they are: over all classes, per class, and as probabilities."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.features import LogMel
from model.training.augment import place
from model.training.metrics import (
    Calibration,
    accuracy,
    at_thresholds,
    average_precision,
    best_label_calibration,
    best_label_right,
    calibration,
    d_prime,
    esc50_top1,
    mean_defined,
    per_class,
    roc_auc,
)
from model.training.predictions import Predictions

MEASURES = {
    "map": "mean average precision (mAP)",
    "mauc": "mean area under the ROC curve (mAUC)",
    "d_prime": "d-prime",
    "accuracy": "accuracy",
    "best_label_right": "best label is one of the clip's",
    "esc50_top1": "top-1 among ESC-50's labelled classes",
    "f1": "mean F1 at the thresholds",
    "calibration_error": "calibration error, every score",
    "best_label_calibration_error": "calibration error, best label",
}
"""What is measured over all classes, in the order in which it is told."""


@dataclass(frozen=True)
class LabelMeasures:
    """One class: how many clips have it, its ranking measures, and what its threshold gives; NaN where undefined."""

    mid: str
    label: str
    clips: int
    average_precision: float
    roc_auc: float
    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Evaluation:
    """All measures of one checkpoint or ensemble; `measures` has only those of MEASURES that these clips can tell."""

    name: str
    clips: int
    unreadable: int
    measures: dict[str, float]
    labels: tuple[LabelMeasures, ...]
    every_score: Calibration
    best_label: Calibration

    @property
    def absent(self) -> tuple[str, ...]:
        """Labels without a clip, which no mean counts."""
        return tuple(row.label for row in self.labels if not row.clips)


def evaluate(predictions: Predictions) -> Evaluation:
    """Measure predictions; accuracy only where every clip has exactly one label."""
    scores, truth = predictions.scores, predictions.truth
    rows = _label_measures(predictions)
    every_score, best_label = calibration(scores, truth), best_label_calibration(scores, truth)
    mauc = mean_defined(np.array([row.roc_auc for row in rows]))
    measures = {
        "map": mean_defined(np.array([row.average_precision for row in rows])),
        "mauc": mauc,
        "d_prime": d_prime(mauc),
        "accuracy": accuracy(scores, truth) if (truth.sum(1) == 1).all() else math.nan,
        "best_label_right": best_label_right(scores, truth),
        "esc50_top1": esc50_top1(scores, predictions.clips, list(predictions.labels.mids)),
        "f1": mean_defined(np.array([row.f1 for row in rows])),
        "calibration_error": every_score.error,
        "best_label_calibration_error": best_label.error,
    }
    return Evaluation(
        name=predictions.name,
        clips=len(predictions.clips),
        unreadable=len(predictions.unreadable),
        measures={name: value for name, value in measures.items() if not math.isnan(value)},
        labels=rows,
        every_score=every_score,
        best_label=best_label,
    )


def _label_measures(predictions: Predictions) -> tuple[LabelMeasures, ...]:
    scores, truth, thresholds = predictions.scores, predictions.truth, predictions.threshold_values
    decisions = at_thresholds(scores, truth, thresholds)
    columns = (
        truth.sum(0),
        per_class(average_precision, scores, truth),
        per_class(roc_auc, scores, truth),
        thresholds,
        decisions.precision,
        decisions.recall,
        decisions.f1,
    )
    values = zip(*(column.tolist() for column in columns), strict=True)
    return tuple(
        LabelMeasures(label.mid, label.name, *row) for label, row in zip(predictions.labels, values, strict=True)
    )


def to_rows(evaluation: Evaluation) -> dict[str, Any]:
    """Everything as plain JSON values; what is undefined or infinite becomes None."""
    return {
        "name": evaluation.name,
        "clips": evaluation.clips,
        "unreadable": evaluation.unreadable,
        "measures": _finite(evaluation.measures),
        "absent_labels": list(evaluation.absent),
        "labels": [_finite(asdict(row)) for row in evaluation.labels],
        "calibration": {
            "every_score": _bins(evaluation.every_score),
            "best_label": _bins(evaluation.best_label),
        },
    }


def _bins(measured: Calibration) -> list[dict[str, Any]]:
    rows = zip(measured.counts.tolist(), measured.mean_score.tolist(), measured.share_right.tolist(), strict=True)
    return [_finite({"count": count, "mean_score": mean, "share_right": right}) for count, mean, right in rows]


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }


def clip_logits(
    network: nn.Module, features: LogMel, waveforms: list[Tensor], samples: int, batch: int = 32
) -> np.ndarray:
    """Logits (clips, C) of each clip's first window of `samples`."""
    device = next(network.parameters()).device
    result = []
    with torch.inference_mode():
        for start in range(0, len(waveforms), batch):
            chosen = waveforms[start : start + batch]
            placed = [place(waveform, samples, None) for waveform in chosen]
            lengths = torch.tensor([length for _, length in placed]).to(device)
            windows = torch.stack([waveform for waveform, _ in placed]).to(device)
            result.append(network(features(windows, lengths)).float().cpu().numpy())
    return np.concatenate(result)
