"""How well scores agree with labels: ranking, single choices and calibration, on plain arrays.

Average precision and the area under the ROC curve are scikit-learn's definitions; means over classes leave out those
where a measure is undefined, as a class without a clip.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from model.training.clips import Clip

ESC50_WITHOUT_LABEL = {"drinking_sipping", "washing_machine", "can_opening"}
"""ESC-50 classes that have no AudioSet label of their own."""
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class PrecisionRecall:
    """One class's trade: what each distinct score as threshold gives, highest first; (points,) each."""

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def f1(self) -> np.ndarray:
        """The harmonic mean of precision and recall, 0 where both are."""
        total = self.precision + self.recall
        return np.divide(2 * self.precision * self.recall, total, out=np.zeros_like(total), where=total > 0)


def precision_recall(scores: np.ndarray, positive: np.ndarray) -> PrecisionRecall:
    """The curve of one class, ties counted together; scores and positive are (clips,).

    Raises: ValueError where there is no positive, and so no recall.
    """
    truth = positive.astype(bool)
    if not truth.any():
        raise ValueError("a precision-recall curve needs a positive")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_tie = np.append(np.nonzero(np.diff(ranked))[0], len(ranked) - 1)
    hits = np.cumsum(truth[order])[last_of_tie]
    return PrecisionRecall(ranked[last_of_tie], hits / (last_of_tie + 1), hits / truth.sum())


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the precision-recall steps of one class, ties counted together; scores and positive are (clips,).

    The definition of scikit-learn's `average_precision_score`. NaN where there is no positive.
    """
    if not positive.any():
        return math.nan
    curve = precision_recall(scores, positive)
    return float((curve.precision * np.diff(curve.recall, prepend=0)).sum())


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive clip of one class scores higher than a negative one, ties counting half; (clips,) each.

    NaN where there are no positives or no negatives.
    """
    truth = positive.astype(bool)
    hits, misses = int(truth.sum()), int((~truth).sum())
    if not hits or not misses:
        return math.nan
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # tied scores share their mean rank
    return float((ranks[truth].sum() - hits * (hits + 1) / 2) / (hits * misses))


def per_class(measure: Callable[[np.ndarray, np.ndarray], float], scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A measure of every class: scores and truth (clips, C) -> (C,), NaN where it is undefined."""
    return np.array([measure(scores[:, c], truth[:, c]) for c in range(scores.shape[1])])


def mean_defined(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN where nothing is defined."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Macro mean of average precision over the classes that have a positive; scores and truth are (clips, C)."""
    return mean_defined(per_class(average_precision, scores, truth))


def mean_roc_auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Macro mean of `roc_auc` over the classes where it is defined; scores and truth are (clips, C)."""
    return mean_defined(per_class(roc_auc, scores, truth))


@dataclass(frozen=True)
class ThresholdMeasures:
    """What each class's threshold gives; (C,) each.

    Precision is NaN where nothing is heard, recall and F1 where there is no positive.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def at_thresholds(scores: np.ndarray, truth: np.ndarray, thresholds: np.ndarray) -> ThresholdMeasures:
    """Measure decisions: scores and truth (clips, C), thresholds (C,)."""
    heard, truth = scores >= thresholds, truth.astype(bool)
    hits, claimed, wanted = (heard & truth).sum(0), heard.sum(0), truth.sum(0)
    f1 = np.where(wanted > 0, _ratio(2 * hits, claimed + wanted), math.nan)
    return ThresholdMeasures(_ratio(hits, claimed), _ratio(hits, wanted), f1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The quotient, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(whole.shape, math.nan), where=whole > 0)


def d_prime(mean_auc: float) -> float:
    """Distance of two unit normals with this area under the curve: sqrt(2) times its normal quantile.

    Infinite at an area of 0 or 1, NaN for NaN.
    """
    if math.isnan(mean_auc):
        return math.nan
    if mean_auc in (0, 1):
        return math.copysign(math.inf, mean_auc - 0.5)
    return math.sqrt(2) * NormalDist().inv_cdf(mean_auc)


def accuracy(scores: np.ndarray, truth: np.ndarray) -> float:
    """Share of clips whose best score is that of their (first) label; scores and truth are (clips, C)."""
    return float(np.mean(scores.argmax(1) == truth.argmax(1)))


def best_label_right(scores: np.ndarray, truth: np.ndarray) -> float:
    """Share of the labelled clips whose best-scored class is one of theirs; NaN where no clip has a label."""
    labelled = truth.any(1)
    best = scores[labelled].argmax(1)
    return mean_defined(truth[labelled][np.arange(len(best)), best].astype(float))


def counts_in_esc50(clip: Clip) -> bool:
    """Tell whether a clip is one of ESC-50's that has an AudioSet label of its own."""
    return bool(clip.mids) and clip.category not in {"", *ESC50_WITHOUT_LABEL}


def esc50_top1(scores: np.ndarray, clips: list[Clip], mids: list[str]) -> float:
    """Share of ESC-50 clips whose best-scored class, among ESC-50's own, is theirs; scores are (clips, C).

    A class is its first AudioSet label; classes without one are left out. NaN where there is no such clip.
    """
    kept = [i for i, clip in enumerate(clips) if counts_in_esc50(clip)]
    if not kept:
        return math.nan
    own = sorted({clips[i].mids[0] for i in kept})
    columns = [mids.index(mid) for mid in own]
    best = scores[np.ix_(kept, columns)].argmax(1)
    return float(np.mean([own[b] == clips[i].mids[0] for b, i in zip(best, kept, strict=True)]))


@dataclass(frozen=True)
class Calibration:
    """How scores compare with how often they are right, in equal bins of [0, 1]; (bins,) each, NaN in empty bins."""

    counts: np.ndarray
    mean_score: np.ndarray
    share_right: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the bins' distance between score and truth, weighted by their counts.

        Guo et al., On Calibration of Modern Neural Networks, 2017.
        """
        filled = self.counts > 0
        distance = np.abs(self.mean_score - self.share_right)[filled]
        return float((distance * self.counts[filled]).sum() / self.counts.sum()) if filled.any() else math.nan


def calibration(scores: np.ndarray, right: np.ndarray, bins: int = CALIBRATION_BINS) -> Calibration:
    """Compare scores in [0, 1] with whether they were right; both have any, equal shape."""
    chosen = np.minimum((scores.ravel() * bins).astype(int), bins - 1)
    counts = np.bincount(chosen, minlength=bins)
    sums = [np.bincount(chosen, weights=values.ravel(), minlength=bins) for values in (scores, right)]
    return Calibration(counts, *(_ratio(total, counts) for total in sums))


def best_label_calibration(scores: np.ndarray, truth: np.ndarray) -> Calibration:
    """Calibration of each labelled clip's best score alone: is its class one of the clip's? (clips, C) each."""
    labelled = truth.any(1)
    best = scores[labelled].argmax(1)
    rows = np.arange(len(best))
    return calibration(scores[labelled][rows, best], truth[labelled][rows, best])
