"""Each class's own threshold, fitted on validation scores and stored in the checkpoint.

One threshold common to all classes is fitted first. Then each class moves from it towards its own best, on the logit
scale, by n / (n + 10) of the way for n positive clips: few positives say little. Classes with fewer than three keep the
common one, and those without any get none, so that the default holds. docs/evaluation.md has what this gains.
"""

import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model.checkpoint import CARD, CONFIG, CheckpointConfig
from model.events import EventRules
from model.training.metrics import at_thresholds, mean_defined, precision_recall
from model.training.predictions import Predictions
from model.whole_files import write_whole

FEWEST_POSITIVES = 3
SHRINKAGE_CLIPS = 10
DIVISIONS = 5
_COMMON = np.arange(0.02, 0.99, 0.02)
_MARGIN = 1e-4  # thresholds stay this far from 0 and 1, where the logit scale ends


@dataclass(frozen=True)
class FittedThresholds:
    """Thresholds by mid, the one they were drawn towards, and labels with none or that never reach the precision."""

    per_class: dict[str, float]
    common: float
    without_clips: tuple[str, ...]
    unreached: tuple[str, ...]


@dataclass(frozen=True)
class Gain:
    """What fitted thresholds give on clips that they were not fitted on, beside the default; means over the classes."""

    default: dict[str, float]
    fitted: dict[str, float]

    @property
    def measured(self) -> bool:
        """Whether there were clips enough for two halves."""
        return not math.isnan(self.fitted["f1"])


def fit_thresholds(predictions: Predictions, precision: float | None = None) -> FittedThresholds:
    """Fit each class's threshold for the best F1, or for the most recall at a `precision` in (0, 1].

    Raises: ValueError when the precision is out of range.
    """
    if precision is not None and not 0 < precision <= 1:
        raise ValueError(f"precision must be above 0 and at most 1, not {precision:g}")
    scores, truth = predictions.scores.astype(np.float64), predictions.truth
    if not truth.any():
        return FittedThresholds({}, EventRules().enter, predictions.labels.names, ())
    common = _common_threshold(scores, truth, precision)
    thresholds: dict[str, float] = {}
    unreached = []
    for label in predictions.labels:
        positive = truth[:, label.index]
        if not positive.any():
            continue
        own = _own_threshold(scores[:, label.index], positive, precision)
        if own is None:
            unreached.append(label.name)
        positives = int(positive.sum()) if own is not None else 0
        thresholds[label.mid] = round(_between(common, own or common, positives), 4)
    absent = tuple(label.name for label in predictions.labels if label.mid not in thresholds)
    return FittedThresholds(thresholds, common, absent, tuple(unreached))


def split_half_gain(predictions: Predictions, precision: float | None = None) -> Gain:
    """Fit on one half of the recording groups, measure on the other, both ways; the means over several divisions."""
    default: list[dict[str, float]] = []
    fitted: list[dict[str, float]] = []
    for division in range(DIVISIONS):
        halves = _halves([clip.split_group for clip in predictions.clips], division)
        for fitting, testing in (halves, halves[::-1]):
            if not (fitting and testing):
                continue
            unseen = predictions.take(testing)
            thresholds = fit_thresholds(predictions.take(fitting), precision).per_class
            default.append(_decision_means(replace(unseen, thresholds={})))
            fitted.append(_decision_means(replace(unseen, thresholds=thresholds)))
    return Gain(_mean_of(default), _mean_of(fitted))


def store_thresholds(folder: Path, thresholds: dict[str, float], note: str) -> None:
    """Put thresholds in place of a checkpoint's own, and a note of their origin on its card; weights stay untouched.

    Raises: NotACheckpointError when config.json cannot be read; OSError if the disk refuses.
    """
    config = CheckpointConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
    card = (folder / CARD).read_text(encoding="utf-8")
    section = f"\n## Thresholds\n\n{note.strip()}\n"
    card = re.sub(r"\n## Thresholds\n.*?(?=\n## |\Z)", "", card, flags=re.DOTALL).rstrip("\n") + "\n" + section
    write_whole(folder / CARD, card.encode())
    write_whole(folder / CONFIG, replace(config, thresholds=thresholds).to_json().encode())


def describe_fit(fitted: FittedThresholds, gain: Gain, source: str, clips: int, precision: float | None = None) -> str:
    """A paragraph for the model card: what was fitted on what, and what it gains on clips it was not fitted on."""
    aim = "the best F1" if precision is None else f"the most recall at a precision of {precision:g}"
    told = (
        f"{len(fitted.per_class)} labels have their own threshold, fitted for {aim} on {clips} clips of {source}; they "
        f"were drawn towards {fitted.common:.2f}, the best common one."
    )
    if not gain.measured:
        return f"{told} What that gains was not measured: there are too few recording groups to split.\n"
    rows = "\n".join(f"| {name} | {gain.default[name]:.3f} | {gain.fitted[name]:.3f} |" for name in gain.default)
    return (
        f"{told} Fitted on one half of these clips and measured on the other, mean over the labels:\n\n"
        f"| | default threshold | fitted |\n|---|---|---|\n{rows}\n"
    )


def _common_threshold(scores: np.ndarray, truth: np.ndarray, precision: float | None) -> float:
    """The threshold with the best mean F1 over the classes; or the lowest whose scores, pooled, reach the precision."""
    if precision is not None:
        pooled = _own_threshold(scores.ravel(), truth.ravel(), precision)
        return 1 - _MARGIN if pooled is None else pooled
    truth, scores = truth[:, truth.any(0)], scores[:, truth.any(0)]
    hits, heard = _counts_from(scores, truth), _counts_from(scores, np.ones_like(truth))
    f1 = 2 * hits / (heard + truth.sum(0)[:, None])  # (C, thresholds)
    return float(_COMMON[int(np.argmax(f1.mean(0)))])


def _counts_from(scores: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """How many of the counted cells (clips, C) of each class reach each common threshold: (C, thresholds)."""
    reached = np.searchsorted(_COMMON, scores, side="right")  # how many of the thresholds each score reaches
    classes, steps = scores.shape[1], len(_COMMON) + 1
    cells = (np.arange(classes) * steps + reached)[counted]
    counts = np.bincount(cells, minlength=classes * steps).reshape(classes, steps)
    return counts[:, ::-1].cumsum(1)[:, ::-1][:, 1:]


def _own_threshold(scores: np.ndarray, positive: np.ndarray, precision: float | None) -> float | None:
    """The best threshold on these clips, half way to the next lower score; None if the precision is not reached."""
    curve = precision_recall(scores, positive)
    if precision is None:
        best = int(np.argmax(curve.f1))
    elif len(reached := np.flatnonzero(curve.precision >= precision)):
        best = int(reached[-1])
    else:
        return None
    below = curve.scores[best + 1] if best + 1 < len(curve.scores) else 0.0
    return _from_logit((_to_logit(curve.scores[best]) + _to_logit(below)) / 2)


def _between(common: float, own: float, positives: int) -> float:
    if positives < FEWEST_POSITIVES:
        return common
    share = positives / (positives + SHRINKAGE_CLIPS)
    return _from_logit(share * _to_logit(own) + (1 - share) * _to_logit(common))


def _to_logit(score: float) -> float:
    inside = min(max(float(score), _MARGIN), 1 - _MARGIN)
    return float(np.log(inside / (1 - inside)))


def _from_logit(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def _halves(groups: Sequence[str], division: int) -> tuple[list[int], list[int]]:
    """Rows whose group falls on one side or the other; each `division` cuts elsewhere."""
    sides = [zlib.crc32(f"{division} {group}".encode(errors="surrogatepass")) % 2 for group in groups]
    first, second = ([row for row, side in enumerate(sides) if side == wanted] for wanted in (0, 1))
    return first, second


def _decision_means(predictions: Predictions) -> dict[str, float]:
    """Mean precision, recall and F1 over the classes with clips."""
    decisions = at_thresholds(predictions.scores, predictions.truth, predictions.threshold_values)
    present = predictions.truth.any(0)
    return {name: mean_defined(getattr(decisions, name)[present]) for name in ("precision", "recall", "f1")}


def _mean_of(measured: Sequence[dict[str, float]]) -> dict[str, float]:
    names = ("precision", "recall", "f1")
    return {name: mean_defined(np.array([one[name] for one in measured])) for name in names}
