"""How far an exported model's logits lie from its checkpoint's."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from model.checkpoint import Checkpoint


@dataclass(frozen=True)
class Parity:
    """Largest and mean difference of logits, and the share of clips whose five best labels are the same five."""

    clips: int
    max_abs_diff: float
    mean_abs_diff: float
    top5_agreement: float


def measure_parity(
    checkpoint: Checkpoint,
    exported: Callable[[np.ndarray], np.ndarray],
    waveforms: list[torch.Tensor] | None = None,
) -> Parity:
    """Compare `exported` (log-mel (B, T, F) → logits (B, C)) with the checkpoint in float32.

    waveforms: each (S,) at the checkpoint's sample rate, at most one window; the golden clip where none are given.
    """
    chosen = [checkpoint.golden.waveform] if waveforms is None else waveforms
    with torch.inference_mode():
        log_mel = torch.cat([checkpoint.features(waveform[None]) for waveform in chosen])
        expected = checkpoint.network(log_mel).float().numpy()
    return compare_logits(expected, exported(log_mel.numpy()))


def compare_logits(expected: np.ndarray, actual: np.ndarray) -> Parity:
    """Compare two (B, C) arrays of logits; NaN counts as an infinite difference.

    Raises: ValueError if the shapes differ.
    """
    if expected.shape != actual.shape:
        raise ValueError(f"logits of shape {actual.shape}, expected {expected.shape}")
    difference = np.nan_to_num(np.abs(expected - actual), nan=np.inf)
    best = [np.argsort(-logits, axis=1)[:, :5] for logits in (expected, actual)]
    same = [set(a) == set(b) for a, b in zip(*best, strict=True)]
    return Parity(len(expected), float(difference.max()), float(difference.mean()), float(np.mean(same)))


def session_logits(path: Path, log_mel: np.ndarray) -> np.ndarray:
    """Logits (B, C) of an ONNX file in ONNX Runtime on the CPU.

    Raises: ImportError with the extra to install, where ONNX Runtime is missing.
    """
    return _session(path, path.stat().st_mtime_ns).run(["logits"], {"log_mel": log_mel.astype(np.float32)})[0]


@lru_cache(maxsize=1)
def _session(path: Path, _changed: int):  # type: ignore[no-untyped-def]
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError("checking an export needs ONNX Runtime") from error
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
