"""How far an exported model's answers lie from its checkpoint's, and how far each precision lets them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from export.clips import Clips
from export.errors import ParityError
from model.checkpoint import Checkpoint
from model.training.metrics import mean_average_precision

Exported = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""An exported model: log-mel float32 (B, T, F) → logits (B, C), embeddings (B, D)."""


@dataclass(frozen=True)
class Tolerance:
    """What a precision may change.

    `share` is the largest difference of a logit or an embedding by the range that the checkpoint's span. On many real
    clips so large a part of them may have another set of best five labels, and so much may mAP change.
    """

    share: float
    best_five: float
    map: float


# Measured with ast-tiny on 200 clips: float16 4e-5, none and 0; bfloat16 0.014, 7.5 % and 0.0002; int8 0.006, 4 % and
# 0.0055. mAP moves in steps: a class that only one of the clips has is a 41st of it there.
TOLERANCES = {
    "float32": Tolerance(1e-4, 0.01, 0.001),
    "float16": Tolerance(2e-2, 0.02, 0.005),
    "bfloat16": Tolerance(5e-2, 0.15, 0.01),
    "int8": Tolerance(1e-1, 0.15, 0.01),
}

MANY_CLIPS = 50
"""Of fewer clips a share says little: one alone would be past it."""

SCORE_TOLERANCE = 0.02
"""Most that a score above `SPOKEN_SCORE` may move in any precision."""

SPOKEN_SCORE = 0.1
"""Scores that people see; below it a label counts as absent."""


@dataclass(frozen=True)
class Parity:
    """Differences of logits and scores, and the shares of clips whose best label, or set of best five, is the same.

    `relative_diff` is the largest logit difference by the range of the checkpoint's logits, at least 1, and
    `relative_embedding_diff` that of embeddings, whose range may be any; `max_score_diff` looks at scores above 0.1
    only. `map_diff` is the export's mean average precision less the checkpoint's, where the clips' labels are known.
    """

    clips: int
    max_abs_diff: float
    mean_abs_diff: float
    relative_diff: float
    max_score_diff: float
    top1_agreement: float
    top5_agreement: float
    max_embedding_diff: float = 0.0
    relative_embedding_diff: float = 0.0
    map_diff: float | None = None

    def check(self, precision: str) -> None:
        """Raises: ParityError past the precision's tolerance."""
        allowed = TOLERANCES[precision]
        found = {
            "largest difference of logits, as a share of their range,": (self.relative_diff, allowed.share),
            "largest difference of embeddings, as a share of their range,": (
                self.relative_embedding_diff,
                allowed.share,
            ),
            "largest difference of a score": (self.max_score_diff, SCORE_TOLERANCE),
        }
        if self.clips >= MANY_CLIPS:
            found["share of clips with other best five labels"] = (1 - self.top5_agreement, allowed.best_five)
            found["change of mean average precision"] = (abs(self.map_diff or 0.0), allowed.map)
        for what, (difference, most) in found.items():
            if not difference <= most:
                raise ParityError(f"the export's {what} is {difference:.2g}, and in {precision} may be {most:g}")


def measure_parity(checkpoint: Checkpoint, exported: Exported, clips: Clips | None = None) -> Parity:
    """Compare `exported` with the checkpoint in float32, one clip after the other.

    clips: the golden clip and sounds made in code where none are given.
    """
    clips = clips or Clips([checkpoint.golden.waveform, *made_sounds(checkpoint)])
    pairs = [_answers(checkpoint, exported, waveform) for waveform in clips.waveforms]
    expected, actual, features, features_there = (np.concatenate(each) for each in zip(*pairs, strict=True))
    compared = compare_logits(expected, actual, checkpoint.config.activation)
    map_diff = None if clips.truth is None else _map_difference(expected, actual, clips.truth)
    distance = _largest(features_there - features)
    relative = distance / (float(np.ptp(features)) or 1.0)
    return replace(compared, max_embedding_diff=distance, relative_embedding_diff=relative, map_diff=map_diff)


def _answers(checkpoint: Checkpoint, exported: Exported, waveform: torch.Tensor) -> tuple[np.ndarray, ...]:
    """One clip's logits, expected and actual, and its embeddings, expected and actual, each of one row."""
    with torch.inference_mode():
        log_mel = checkpoint.features(waveform[None])
        embeddings = checkpoint.network.embed(log_mel)  # type: ignore[operator, union-attr]
        logits = checkpoint.network.head(embeddings)  # type: ignore[operator, union-attr]
    logits_there, embeddings_there = exported(log_mel.numpy())
    return logits.float().numpy(), logits_there, embeddings.float().numpy(), embeddings_there


def made_sounds(checkpoint: Checkpoint) -> list[torch.Tensor]:
    """Sounds of a whole window each (S,): a rising tone, clicks, and a tone in noise."""
    seconds = torch.arange(checkpoint.config.window_samples) / checkpoint.config.features.sample_rate
    noise = torch.randn(len(seconds), generator=torch.Generator().manual_seed(1))
    rising = 0.5 * torch.sin(2 * torch.pi * (100 + 300 * seconds) * seconds)
    clicks = 0.8 * ((seconds * 4) % 1 < 0.01).float() * noise.sign()
    return [rising, clicks, 0.3 * torch.sin(2 * torch.pi * 440 * seconds) + 0.05 * noise]


def compare_logits(expected: np.ndarray, actual: np.ndarray, activation: str = "sigmoid") -> Parity:
    """Compare two (B, C) arrays of logits; NaN counts as an infinite difference.

    Raises: ValueError if the shapes differ.
    """
    if expected.shape != actual.shape:
        raise ValueError(f"logits of shape {actual.shape}, expected {expected.shape}")
    difference = np.nan_to_num(np.abs(expected - actual), nan=np.inf)
    scores = [_scores(logits, activation) for logits in (expected, actual)]
    spoken = np.maximum(*scores) > SPOKEN_SCORE
    order = [np.argsort(-logits, axis=1) for logits in (expected, actual)]
    same = [set(a[:5]) == set(b[:5]) for a, b in zip(*order, strict=True)]
    return Parity(
        clips=len(expected),
        max_abs_diff=float(difference.max()),
        mean_abs_diff=float(difference.mean()),
        relative_diff=float(difference.max() / max(1.0, float(np.ptp(expected)))),
        max_score_diff=_largest((scores[0] - scores[1])[spoken]),
        top1_agreement=float(np.mean(order[0][:, 0] == order[1][:, 0])),
        top5_agreement=float(np.mean(same)),
    )


def _map_difference(expected: np.ndarray, actual: np.ndarray, truth: np.ndarray) -> float | None:
    """The actual logits' less the expected ones'; None without labels. Their order decides, so no scores are needed."""
    before, after = (mean_average_precision(logits, truth > 0) for logits in (expected, actual))
    return after - before if np.isfinite(after - before) else None


def _scores(logits: np.ndarray, activation: str) -> np.ndarray:
    tensor = torch.from_numpy(np.ascontiguousarray(logits)).double()
    return (tensor.softmax(dim=1) if activation == "softmax" else tensor.sigmoid()).numpy()


def _largest(differences: np.ndarray) -> float:
    return float(np.nan_to_num(np.abs(differences), nan=np.inf).max(initial=0.0))
