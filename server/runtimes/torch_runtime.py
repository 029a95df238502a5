"""The reference runtime: the checkpoint's own features and network in torch, on a CPU or a CUDA device."""

import time
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor

from model.backbones.mamba import MambaMixer
from model.checkpoint import Checkpoint
from model.selective_scan import default_implementation
from server.runtimes.base import BatchResult, RuntimeInfo

SCAN_PACKAGES = {"cpu": "numba", "cuda": "mamba_ssm"}  # what runs the scan; other implementations go by their name


class TorchRuntime:
    """One checkpoint on its device; "bfloat16" and "float16" run the network under autocast, features stay float32."""

    def __init__(self, checkpoint: Checkpoint, device: str, precision: str = "float32") -> None:
        self._device = torch.device(device)
        self._dtype: torch.dtype = getattr(torch, precision)
        self._features = checkpoint.features.to(self._device)
        self._network = checkpoint.network.to(self._device)
        scans = any(isinstance(module, MambaMixer) for module in self._network.modules())
        implementation = default_implementation(self._device)
        scan = SCAN_PACKAGES.get(implementation, implementation) if scans else None
        self.info = RuntimeInfo(runtime="torch", precision=precision, device=str(self._device), scan=scan)

    def run(self, waveforms: np.ndarray, lengths: np.ndarray) -> BatchResult:
        """Tags waveforms float32 (B, S), valid for `lengths` int64 (B,) samples, with logits (B, C)."""
        with torch.inference_mode():
            started = self._now()
            log_mel = self._features(
                torch.from_numpy(waveforms).to(self._device), torch.from_numpy(lengths).to(self._device)
            )
            featured = self._now()
            logits = self._logits(log_mel).float().cpu().numpy()
            finished = self._now()
        return BatchResult(logits, featured - started, finished - featured)

    def close(self) -> None:
        """Drops the network and empties the device's cache."""
        del self._features, self._network
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _logits(self, log_mel: Tensor) -> Tensor:
        reduced = self._dtype is not torch.float32
        with torch.autocast(self._device.type, self._dtype) if reduced else nullcontext():
            return self._network(log_mel)

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
