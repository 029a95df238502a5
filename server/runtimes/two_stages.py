"""What all runtimes of networks share: log-mel in torch on the device, then the network, each timed."""

import time

import numpy as np
import torch
from torch import Tensor

from model.features import LogMel
from server.runtimes.base import BatchResult


class TwoStages:
    """Computes log-mel on the device, and leaves the network to `_infer`, which subclasses give."""

    def __init__(self, features: LogMel, device: str) -> None:
        self._device = torch.device(device)
        self._features = features.to(self._device)

    def _run(self, waveforms: np.ndarray, lengths: np.ndarray) -> BatchResult:
        with torch.inference_mode():
            started = self._now()
            sound = torch.from_numpy(waveforms).to(self._device), torch.from_numpy(lengths).to(self._device)
            log_mel = self._features(*sound)
            featured = self._now()
            logits, embeddings = self._infer(log_mel.contiguous())
            finished = self._now()
        return BatchResult(logits, embeddings, featured - started, finished - featured)

    def _infer(self, log_mel: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Log-mel (B, T, F) on the device to logits (B, C) and embeddings (B, D) float32."""
        raise NotImplementedError

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
