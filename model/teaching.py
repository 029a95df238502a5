"""Teaches a class from a handful of clips: a linear head over a network's frozen embeddings, judged on left-out clips.

clips of the class ─┐
                    ├─► embeddings (W, D) per clip ─► balanced logistic regression ─► weight (D,), bias, threshold
clips without it  ──┘                            └─► the same without one clip, for every clip ─► quality

The quality is leave-one-out: each clip is scored by a head that never saw it, nor a copy of it. The threshold is chosen
on those scores, so recall and precision at it are a little optimistic, and all three know no other sounds than the
negatives given here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STRENGTH = 0.03  # of the L2 penalty, on standardised embeddings of mean length 1; 0.01 to 0.3 did the same on ESC-50
LEAST_SPREAD = 0.1  # no feature's deviation counts as less than this share of the mean one: noise is not blown up
LEAST_SEPARATION = 0.8  # a positive clip must outscore a negative one this often
MOST_WINDOWS = 300  # of all clips together: leaving each of 200 clips out takes seconds then, not minutes
NEWTON_STEPS = 50
CONVERGED = 1e-6
SAME_SOUND = 2e-4  # copies lie nearer, whatever batch they ran in (float32); two sounds lie about 1 apart


class TeachingError(ValueError):
    """The clips cannot teach a class; the message says what to change."""


@dataclass(frozen=True)
class Clip:
    """One clip's window embeddings float32 (W, D); `origin` says in words where a negative one is from."""

    embeddings: np.ndarray
    origin: str = ""


@dataclass(frozen=True)
class Quality:
    """How well clips that were left out are told apart; `threshold` is where recall and precision balance best."""

    average_precision: float
    threshold: float
    recall: float
    precision: float
    clips: int
    negatives: int
    confused_with: str | None = None  # the origin of the negatives that score as high as the class

    @property
    def told_apart(self) -> bool:
        return self.confused_with is None


@dataclass(frozen=True)
class LinearHead:
    """The logit of embeddings (..., D) is `embeddings @ weight + bias`."""

    weight: np.ndarray
    bias: float

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """(..., D) -> (...)."""
        return embeddings @ self.weight + np.float32(self.bias)

    def rescaled(self, slope: float, offset: float) -> "LinearHead":
        """The head whose logits are `slope * logits + offset`."""
        return LinearHead((slope * self.weight).astype(np.float32), slope * self.bias + offset)


def teach(positives: Sequence[Clip], negatives: Sequence[Clip]) -> tuple[LinearHead, Quality]:
    """Fits the head on all clips, and judges it by leaving each clip out in turn.

    Raises: TeachingError with fewer than two clips of the class or no negative one, or embeddings that are not finite,
    or clips of the class that are all the same sound.
    """
    if len(positives) < 2 or not negatives:
        raise TeachingError("a class needs at least two clips, and one clip without it")
    clips = _thin([*positives, *negatives])
    table = _Table.of(clips, len(positives))
    solution = table.fit(np.ones(len(table.clip), bool))
    logits = np.array([table.left_out_logit(index, solution) for index in range(len(clips))])
    slope, offset = _calibrate(logits, len(positives))
    quality = judge(_sigmoid(slope * logits + offset), len(positives), [clip.origin for clip in negatives])
    return table.head(solution).rescaled(slope, offset), quality


def _thin(clips: Sequence[Clip]) -> list[Clip]:
    """The same clips, long ones by a few windows spread evenly over them where all together have too many."""
    most = max(1, MOST_WINDOWS // len(clips))
    places = [np.linspace(0, len(clip.embeddings) - 1, min(len(clip.embeddings), most)).round() for clip in clips]
    return [Clip(clip.embeddings[kept.astype(int)], clip.origin) for clip, kept in zip(clips, places, strict=True)]


def judge(scores: np.ndarray, positives: int, origins: Sequence[str]) -> Quality:
    """Measures clip scores (K,): the first `positives` belong to the class, the others have an origin each."""
    inside, outside = scores[:positives], scores[positives:]
    threshold = best_threshold(inside, outside)
    loud = int((inside >= threshold).sum()), int((outside >= threshold).sum())
    return Quality(
        average_precision=round(average_precision(inside, outside), 4),
        threshold=round(threshold, 4),
        recall=round(loud[0] / positives, 4),
        precision=round(loud[0] / max(1, sum(loud)), 4),
        clips=positives,
        negatives=len(outside),
        confused_with=_confused_with(inside, outside, origins),
    )


def average_precision(inside: np.ndarray, outside: np.ndarray) -> float:
    """The mean, over positive scores, of the precision at that score; ties count against the class."""
    at = inside[:, None]
    hits, alarms = (inside >= at).sum(axis=1), (outside >= at).sum(axis=1)
    return float(np.mean(hits / (hits + alarms)))


def best_threshold(inside: np.ndarray, outside: np.ndarray) -> float:
    """The score between 0.05 and 0.95 with the highest F1, in the middle of the gap around it."""
    scores = np.unique(np.concatenate([inside, outside]))
    between = np.clip((scores[1:] + scores[:-1]) / 2, 0.05, 0.95) if len(scores) > 1 else np.array([0.5])
    hits = (inside >= between[:, None]).sum(axis=1)
    alarms = (outside >= between[:, None]).sum(axis=1)
    return float(between[np.argmax(2 * hits / (len(inside) + hits + alarms))])


def _confused_with(inside: np.ndarray, outside: np.ndarray, origins: Sequence[str]) -> str | None:
    """The origin whose clips the class outscores least often, where that is too rarely."""
    by_origin = {origin: outside[[other == origin for other in origins]] for origin in dict.fromkeys(origins)}
    separation = {origin: _separation(inside, scores) for origin, scores in by_origin.items()}
    worst = min(separation, key=separation.__getitem__)
    return worst if separation[worst] < LEAST_SEPARATION else None


def _separation(inside: np.ndarray, outside: np.ndarray) -> float:
    """How often a positive clip scores above a negative one (the area under the ROC curve); ties count half."""
    difference = inside[:, None] - outside[None, :]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * logits))


def _calibrate(logits: np.ndarray, positives: int) -> tuple[float, float]:
    """Slope and offset that make left-out clips' logits (K,) probabilities (Platt 1999, with his smoothed targets).

    Without it the balanced loss would leave every sound near one half, above labels that are surely absent.
    """
    negatives = len(logits) - positives
    inside = np.arange(len(logits)) < positives
    targets = np.where(inside, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    rows = np.column_stack([logits, np.ones(len(logits))])
    slope, offset = _minimise(rows, targets, np.full(len(logits), 1 / len(logits)), np.full(2, 1e-6))
    return (float(slope), float(offset)) if slope > 0 else (1.0, 0.0)  # a class that is not told apart


def _minimise(
    rows: np.ndarray, truth: np.ndarray, weights: np.ndarray, penalty: np.ndarray, start: np.ndarray | None = None
) -> np.ndarray:
    """The minimum (R,) of the weighted log-loss of rows (N, R) with an L2 penalty (R,), by Newton, never uphill."""

    def loss(solution: np.ndarray) -> float:
        logits = rows @ solution
        return float(weights @ (np.logaddexp(0, logits) - truth * logits) + 0.5 * penalty @ solution**2)

    solution = np.zeros(rows.shape[1]) if start is None else start
    for _ in range(NEWTON_STEPS):
        chance = _sigmoid(rows @ solution)
        gradient = rows.T @ (weights * (chance - truth)) + penalty * solution
        if np.abs(gradient).max() < CONVERGED:
            break
        curvature = (rows * (weights * chance * (1 - chance))[:, None]).T @ rows + np.diag(penalty)
        step, before = np.linalg.solve(curvature, gradient), loss(solution)
        while loss(solution - step) > before and np.abs(step).max() > CONVERGED:
            step = step / 2
        solution = solution - step
    return solution


def _same_sound(rows: np.ndarray, others: np.ndarray) -> bool:
    return rows.shape == others.shape and float(np.linalg.norm(rows - others, axis=1).max()) < SAME_SOUND


@dataclass(frozen=True)
class _Table:
    """All windows as rows, standardised and turned into the few directions they span: float64 (N, R).

    With an L2 penalty the best weight lies in the rows' span (representer theorem), so nothing is lost by the turn.
    """

    rows: np.ndarray
    clip: np.ndarray  # (N,) the clip of each row
    positives: int  # the first clips belong to the class
    mean: np.ndarray  # (D,)
    basis: np.ndarray  # (D, R), the scale included

    @classmethod
    def of(cls, clips: Sequence[Clip], positives: int) -> "_Table":
        embeddings = np.concatenate([clip.embeddings for clip in clips]).astype(np.float64)
        if not np.isfinite(embeddings).all():
            raise TeachingError("the network's embeddings of these clips are not finite numbers")
        mean, spread = embeddings.mean(axis=0), embeddings.std(axis=0)
        if not spread.any():
            raise TeachingError("the network hears no difference at all between these clips and the negatives")
        scale = np.maximum(spread, LEAST_SPREAD * spread.mean()) * np.sqrt(len(mean))
        standard = (embeddings - mean) / scale
        _, sizes, directions = np.linalg.svd(standard, full_matrices=False)
        directions = directions[sizes > 1e-9 * sizes[0]]
        clip = np.repeat(np.arange(len(clips)), [len(clip.embeddings) for clip in clips])
        return cls(standard @ directions.T, clip, positives, mean, directions.T / scale[:, None])

    def fit(self, used: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """The best weights and bias, (R + 1,), on the used rows (N,) for the penalised, balanced log-loss."""
        rows = np.column_stack([self.rows[used], np.ones(used.sum())])
        truth = (self.clip[used] < self.positives).astype(np.float64)
        penalty = np.full(rows.shape[1], STRENGTH)
        penalty[-1] = 1e-9  # the bias is free
        return _minimise(rows, truth, self._weights(used), penalty, start)

    def left_out_logit(self, clip: int, start: np.ndarray) -> float:
        """The clip's highest window logit, by a head fitted without the clip and its copies."""
        solution = self.fit(~np.isin(self.clip, self._copies(clip)), start)
        return float((self.rows[self.clip == clip] @ solution[:-1]).max() + solution[-1])

    def _copies(self, clip: int) -> list[int]:
        """The clip and, of the class, those of the same sound: they would tell a head what it is judged on.

        Raises: TeachingError where that is the whole class.
        """
        if clip >= self.positives:
            return [clip]
        rows = [self.rows[self.clip == other] for other in range(self.positives)]
        copies = [other for other in range(self.positives) if _same_sound(rows[clip], rows[other])]
        if len(copies) == self.positives:
            raise TeachingError("the clips of the class are all the same sound; send different recordings of it")
        return copies

    def head(self, solution: np.ndarray) -> LinearHead:
        """The solution for embeddings as the network gives them."""
        weight = self.basis @ solution[:-1]
        return LinearHead(weight.astype(np.float32), float(solution[-1] - self.mean @ weight))

    def _weights(self, used: np.ndarray) -> np.ndarray:
        """Every clip counts the same however many windows it has, and the two sides count one half each."""
        clips, windows = self.clip[used], np.bincount(self.clip[used], minlength=1 + self.clip.max())
        inside = clips < self.positives
        sides = np.where(inside, len(np.unique(clips[inside])), len(np.unique(clips[~inside])))
        return 0.5 / (sides * windows[clips])
