"""OpenVINO on the CPU: bfloat16, or eight-bit weights with activations quantised while running."""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.features import LogMel
from model.precision import best_cpu_precision
from server.runtimes.exported import OUTPUTS, Export, ExportedRuntime
from server.serving_errors import BrokenExportError, RuntimeUnavailableError


class OpenVinoRuntime(ExportedRuntime):
    """One export, compiled for this machine's processor."""

    def __init__(self, export: Export, features: LogMel, device: str) -> None:
        super().__init__(export, features, device)
        self._compiled = _compile(export)

    def close(self) -> None:
        """Gives back the compiled model's memory."""
        del self._compiled

    def _infer(self, log_mel: Tensor) -> tuple[np.ndarray, np.ndarray]:
        answers = [self._infer_one(window[None].numpy()) for window in log_mel]
        logits, embeddings = (np.concatenate(outputs) for outputs in zip(*answers, strict=True))
        return logits, embeddings

    def _infer_one(self, log_mel: np.ndarray) -> list[np.ndarray]:
        """Log-mel (1, T, F) to logits (1, C) and embeddings (1, D); the export is for one window at a time."""
        outputs = self._compiled([log_mel])
        return [outputs[name].copy() for name in OUTPUTS]  # the memory is the next window's too


def compile_options(export: Export, threads: int) -> dict[str, Any]:
    """What OpenVINO is told; anything but float32 runs in bfloat16 where the processor has it.

    A processor without bfloat16 would only emulate it, slower than float32.
    """
    native = export.precision != "float32" and best_cpu_precision() == "bfloat16"
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if native else "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # a pinned thread waits for whoever else is on its core
        **export.about.get("compile", {}),
    }


def _compile(export: Export) -> Any:
    # It would ask a server on the internet whether it may count its users.
    os.environ.setdefault("OPENVINO_TELEMETRY_DISABLED", "1")
    try:
        import openvino
    except ImportError as error:
        raise RuntimeUnavailableError("OpenVINO is not installed; install Hark with its cpu extra") from error
    core = openvino.Core()
    options = compile_options(export, torch.get_num_threads())
    if "TBB_PARTITIONER" in core.get_property("CPU", "SUPPORTED_PROPERTIES"):  # older versions lack it
        options["TBB_PARTITIONER"] = "AUTO"  # a core that is held up hands its share of the work to the others
    try:
        return core.compile_model(export.model, "CPU", options)
    except RuntimeError as error:  # its words span lines and name its own source files
        raise BrokenExportError(f"OpenVINO cannot read {export.model}") from error
