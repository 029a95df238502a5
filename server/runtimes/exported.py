"""What the runtimes of exports share: log-mel in torch on the device, then a network that is not torch's."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.features import LogMel
from server.runtimes.base import BatchResult, DeviceOutOfMemoryError, RuntimeInfo
from server.runtimes.shortage import is_shortage
from server.serving_errors import BrokenExportError

DESCRIPTION = "export.json"
FORMAT = 3
"""Exports of older formats are made anew: 3 brought OpenVINO's graphs for one window."""

OUTPUTS = ("logits", "embeddings")


@dataclass(frozen=True)
class Export:
    """An export's folder and what its export.json says; the rest of it is in `about`."""

    folder: Path
    runtime: str
    precision: str
    weights_sha256: str
    about: dict[str, Any] = field(repr=False)


def read_export(folder: Path) -> Export:
    """Raises: BrokenExportError for a folder without a readable description of this version's format."""
    try:
        about = json.loads((folder / DESCRIPTION).read_text())
        if about["format"] != FORMAT:
            raise BrokenExportError(f"the export in {folder} is of another format; export the checkpoint again")
        words = about["runtime"], about["precision"], about["source_weights_sha256"]
        if not all(isinstance(word, str) for word in words):
            raise TypeError
        return Export(folder, *words, about)
    except OSError as error:
        raise BrokenExportError(f"the export in {folder} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenExportError(f"{folder / DESCRIPTION} is no description of an export") from error


class ExportedRuntime:
    """Computes log-mel in torch on the device, and leaves the network to `_infer`, which subclasses give."""

    most_batches = 1  # these libraries keep threads of their own for one batch
    ready_batches = 0

    def __init__(self, export: Export, features: LogMel, device: str) -> None:
        self._device = torch.device(device)
        self._features = features.to(self._device)
        self.info = RuntimeInfo(runtime=export.runtime, precision=export.precision, device=device, scan=None)

    def run(self, waveforms: np.ndarray, lengths: np.ndarray, batches: int = 1) -> BatchResult:
        """Tags waveforms float32 (B, S), of which `lengths` int64 (B,) are sound: logits (B, C), embeddings (B, D).

        Raises: DeviceOutOfMemoryError.
        """
        try:
            return self._run(waveforms, lengths)
        except Exception as error:  # the libraries' errors have no common base
            if not is_shortage(error):
                raise
            raise DeviceOutOfMemoryError(str(error)) from None

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
