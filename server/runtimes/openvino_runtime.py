"""OpenVINO on the CPU: bfloat16, or eight-bit weights with activations quantised while running."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.features import LogMel
from model.precision import best_cpu_precision
from server.runtimes.exported import OUTPUTS, Export, ExportedRuntime
from server.serving_errors import BrokenExportError, RuntimeUnavailableError

MODEL = "model.xml"


class OpenVinoRuntime(ExportedRuntime):
    """One export, compiled for this machine's processor."""

    def __init__(self, export: Export, features: LogMel, device: str) -> None:
        super().__init__(export, features, device)
        self._compiled = _compile(export)

    def close(self) -> None:
        """Gives back the compiled model's memory."""
        del self._compiled

    def _infer(self, log_mel: Tensor) -> tuple[np.ndarray, np.ndarray]:
        outputs = self._compiled([log_mel.numpy()])
        logits, embeddings = (outputs[name].copy() for name in OUTPUTS)  # the memory is the next batch's too
        return logits, embeddings


def compile_options(export: Export, threads: int) -> dict[str, Any]:
    """What OpenVINO is told; anything but float32 runs in bfloat16 where the processor has it.

    A processor without bfloat16 would only emulate it, slower than float32.
    """
    native = export.precision != "float32" and best_cpu_precision() == "bfloat16"
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if native else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        **export.about.get("compile", {}),
    }


def _compile(export: Export) -> Any:
    # It would ask a server on the internet whether it may count its users.
    os.environ.setdefault("OPENVINO_TELEMETRY_DISABLED", "1")
    try:
        import openvino
    except ImportError as error:
        raise RuntimeUnavailableError("OpenVINO is not installed; install Hark with its cpu extra") from error
    path: Path = export.folder / MODEL
    if not path.is_file():
        raise BrokenExportError(f"{path} is missing; export the checkpoint again")
    try:
        return openvino.Core().compile_model(path, "CPU", compile_options(export, torch.get_num_threads()))
    except RuntimeError as error:  # its words span lines and name its own source files
        raise BrokenExportError(f"OpenVINO cannot read {path}") from error
