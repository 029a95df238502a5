"""The golden check: a runtime must give the logits that the checkpoint's weights gave when they were saved."""

import numpy as np
import torch

from model.checkpoint import Checkpoint
from server.lane import Lane
from server.serving_errors import RuntimeDriftError

# Share of the golden logits' range that a runtime may be off. float32 differs by summation order only; 16-bit numbers
# carry 8 (bfloat16) or 11 (float16) significant bits through dozens of layers, int8 weights 7.
GOLDEN_TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1, "int8": 1e-1}

SCORE_TOLERANCE = 0.02
"""Most that a score above `SPOKEN_SCORE` may move, in any precision."""

SPOKEN_SCORE = 0.1


def check_golden(checkpoint: Checkpoint, lane: Lane, device: int = 0, batches: int = 1) -> float:
    """The largest difference of the lane's logits to the golden ones, as one of so many batches.

    Raises: RuntimeDriftError past the precision's tolerance, NaN included.
    """
    expected = checkpoint.golden.logits.numpy()
    actual = lane.run([checkpoint.golden.waveform.numpy()], device, batches).logits[0]
    difference = float(np.abs(actual - expected).max())
    allowed = GOLDEN_TOLERANCE[lane.runtimes[device].info.precision] * max(1.0, float(np.ptp(expected)))
    if not difference <= allowed:
        raise RuntimeDriftError(f"golden logits are off by {difference:.3g}, more than {allowed:.3g}")
    moved = _score_difference(expected, actual, checkpoint.config.activation)
    if not moved <= SCORE_TOLERANCE:
        raise RuntimeDriftError(f"a golden score is off by {moved:.3g}, more than {SCORE_TOLERANCE:g}")
    return difference


def _score_difference(expected: np.ndarray, actual: np.ndarray, activation: str) -> float:
    """The largest difference of the scores that people see."""
    logits = torch.from_numpy(np.stack([expected, actual])).double()
    scores = (logits.softmax(dim=1) if activation == "softmax" else logits.sigmoid()).numpy()
    return float(np.abs(scores[0] - scores[1])[scores.max(axis=0) > SPOKEN_SCORE].max(initial=0.0))
