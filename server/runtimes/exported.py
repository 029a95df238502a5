"""Exports on disk, and what the runtimes of a network that is not torch's share."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from model.checkpoint import CONFIG, GOLDEN, LABELS, file_sha256
from model.features import LogMel
from server.runtimes.base import BatchResult, DeviceOutOfMemoryError, RuntimeInfo
from server.runtimes.shortage import is_shortage
from server.runtimes.two_stages import TwoStages
from server.serving_errors import BrokenExportError

DESCRIPTION = "export.json"
FORMAT = 4
"""Exports of older formats are made anew: 4 brought the files' checksums."""

MODELS = {
    "onnx": ("model.onnx",),
    "onnx-tensorrt": ("model.onnx",),
    "openvino": ("model.xml", "model.bin"),
    "tensorrt": ("model.plan",),
}
"""What an export's runtime may be, and the files of its model."""

PRECISIONS = ("float32", "float16", "bfloat16", "int8")

OUTPUTS = ("logits", "embeddings")


@dataclass(frozen=True)
class Export:
    """An export's folder and what its export.json says; the rest of it is in `about`."""

    folder: Path
    runtime: str
    precision: str
    weights_sha256: str
    about: dict[str, Any] = field(repr=False)

    @property
    def model(self) -> Path:
        """The file that the runtime's library opens."""
        return self.folder / MODELS[self.runtime][0]


def read_export(folder: Path) -> Export:
    """Reads an export's description and compares every file with its checksum.

    Raises: BrokenExportError for a folder without a readable description of this version's format, or with a file that
    is missing or is not the one that was exported.
    """
    try:
        about = json.loads((folder / DESCRIPTION).read_text())
        if about["format"] != FORMAT:
            raise BrokenExportError(f"the export in {folder} is of another format; export the checkpoint again")
        if not _is_description(about):
            raise ValueError
        for name, sha256 in about["files"].items():
            if file_sha256(folder / name) != sha256:
                raise BrokenExportError(f"{folder / name} is not as it was exported; export the checkpoint again")
        return Export(folder, about["runtime"], about["precision"], about["source_weights_sha256"], about)
    except OSError as error:
        where = error.filename or folder
        raise BrokenExportError(f"{where} cannot be read ({error.strerror}); export the checkpoint again") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenExportError(f"{folder / DESCRIPTION} is no description of an export") from error


def _is_description(about: dict[str, Any]) -> bool:
    """Whether all that the runtimes rely on is there, and of its kind; raises where even its shape is another."""
    runtime, precision, options = about["runtime"], about["precision"], about.get("compile", {})
    return (
        precision in PRECISIONS
        and {*MODELS[runtime], CONFIG, LABELS, GOLDEN} <= about["files"].keys()
        and all(isinstance(word, str) for word in (about["source_weights_sha256"], *options, *options.values()))
        and isinstance(about["versions"], dict)
        and (runtime != "tensorrt" or int(about["batches"]["max"]) >= 1)
    )


class ExportedRuntime(TwoStages):
    """Runs one batch at a time; `_infer` is what a library makes of the export."""

    most_batches = 1  # these libraries keep threads of their own for one batch
    ready_batches, independent_batches = 0, 1

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
