"""Exports on disk, and what the runtimes of a network that is not torch's share."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.features import LogMel
from server.runtimes.base import BatchResult, DeviceOutOfMemoryError, RuntimeInfo
from server.runtimes.shortage import is_shortage
from server.runtimes.two_stages import TwoStages
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


class ExportedRuntime(TwoStages):
    """Runs one batch at a time; `_infer` is what a library makes of the export."""

    most_batches = 1  # these libraries keep threads of their own for one batch
    ready_batches = 0

    def __init__(self, export: Export, features: LogMel, device: str) -> None:
        super().__init__(features, device)
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
