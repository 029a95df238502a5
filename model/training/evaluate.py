"""How well scores agree with labels: macro average precision, and top-1 among a data set's own classes."""

import math
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor, nn

from model.features import LogMel
from model.training.augment import place
from model.training.data import Clip

ESC50_WITHOUT_LABEL = {"drinking_sipping", "washing_machine", "can_opening"}
"""ESC-50 classes that have no AudioSet label of their own."""


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the precision-recall steps of one class, ties counted together; scores and positive are (clips,).

    The definition of scikit-learn's `average_precision_score`. NaN where there is no positive.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, truth = scores[order], positive[order].astype(bool)
    last_of_tie = np.append(np.nonzero(np.diff(ranked))[0], len(ranked) - 1)
    hits = np.cumsum(truth)[last_of_tie]
    precision = hits / (last_of_tie + 1)
    gained = np.diff(hits, prepend=0)
    return float((precision * gained).sum() / truth.sum()) if truth.any() else float("nan")


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Macro mean of average precision over the classes that have a positive; scores and truth are (clips, C)."""
    values = [average_precision(scores[:, c], truth[:, c]) for c in range(scores.shape[1])]
    return float(np.nanmean(values))


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive clip of one class scores higher than a negative one, ties counting half; (clips,) each.

    NaN where there are no positives or no negatives.
    """
    truth = positive.astype(bool)
    hits, misses = int(truth.sum()), int((~truth).sum())
    if not hits or not misses:
        return float("nan")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # tied scores share their mean rank
    return float((ranks[truth].sum() - hits * (hits + 1) / 2) / (hits * misses))


def mean_roc_auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Macro mean of `roc_auc` over the classes where it is defined; scores and truth are (clips, C)."""
    return float(np.nanmean([roc_auc(scores[:, c], truth[:, c]) for c in range(scores.shape[1])]))


def d_prime(mean_auc: float) -> float:
    """Distance of two unit normals with this area under the curve: sqrt(2) times its normal quantile."""
    return math.sqrt(2) * NormalDist().inv_cdf(mean_auc)


def accuracy(scores: np.ndarray, truth: np.ndarray) -> float:
    """Share of clips whose best score is that of their (first) label; scores and truth are (clips, C)."""
    return float(np.mean(scores.argmax(1) == truth.argmax(1)))


def esc50_top1(scores: np.ndarray, clips: list[Clip], mids: list[str]) -> float:
    """Share of ESC-50 clips whose best-scored class, among ESC-50's own, is theirs; scores are (clips, C).

    A class is its first AudioSet label; classes without one are left out.
    """
    kept = [i for i, clip in enumerate(clips) if clip.category and clip.category not in ESC50_WITHOUT_LABEL]
    if not kept:
        return float("nan")
    own = sorted({clips[i].mids[0] for i in kept})
    columns = [mids.index(mid) for mid in own]
    best = scores[np.ix_(kept, columns)].argmax(1)
    return float(np.mean([own[b] == clips[i].mids[0] for b, i in zip(best, kept, strict=True)]))


def clip_logits(
    network: nn.Module, features: LogMel, waveforms: list[Tensor], samples: int, batch: int = 32
) -> np.ndarray:
    """Logits (clips, C) of each clip's first window of `samples`."""
    result = []
    with torch.inference_mode():
        for start in range(0, len(waveforms), batch):
            chosen = waveforms[start : start + batch]
            placed = [place(waveform, samples, None) for waveform in chosen]
            lengths = torch.tensor([length for _, length in placed])
            windows = torch.stack([waveform for waveform, _ in placed])
            result.append(network(features(windows, lengths)).float().cpu().numpy())
    return np.concatenate(result)
