"""AST and SSAST checkpoints to ONNX, in the form that ONNX Runtime executes fastest.

float32    CPU and CUDA
float16    CUDA: products in half precision; patches, norms, residual sums and the head in float32
int8       CPU: the blocks' products in eight bits (see `export/int8.py`)
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from torch import nn

from export.attention import OneOperatorAttention, with_attention
from export.clips import Clips
from export.errors import MissingPackageError
from export.folder import check_precision, make_export, metadata
from export.graph import OPSET, OUTPUTS, log_mel_example, lowered, write_graph
from export.int8 import quantise_dynamically
from export.parity import Exported, Parity
from model.backbones.transformer import Attention
from model.checkpoint import Checkpoint
from model.precision import Precision

try:
    import onnxruntime
except ImportError as error:
    raise MissingPackageError("an ONNX export is checked with the package onnxruntime", name="onnxruntime") from error

PRECISIONS = ("float32", "float16", "int8")
MODEL = "model.onnx"


def to_onnx(
    checkpoint: Checkpoint,
    folder: str | Path,
    precision: str = "float32",
    clips: Clips | None = None,
) -> Parity:
    """Export, and compare with the checkpoint; raises as `make_export`."""
    check_precision(checkpoint, "onnx", precision, PRECISIONS)
    return make_export(checkpoint, folder, "onnx", precision, write_onnx, open_onnx, clips)


def write_onnx(
    checkpoint: Checkpoint,
    precision: str,
    folder: Path,
    attention: Callable[[Attention], nn.Module] = OneOperatorAttention,
) -> dict[str, Any]:
    """Write model.onnx."""
    traced = "float32" if precision == "int8" else precision
    network = with_attention(lowered(checkpoint, cast(Precision, traced)), attention)
    path = folder / MODEL
    write_graph(network.eval(), log_mel_example(checkpoint), path, metadata(checkpoint, precision))
    if precision == "int8":
        quantise_dynamically(onnx.load(path), path)
    versions = {"torch": torch.__version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    return {"opset": OPSET, "versions": versions}


def open_onnx(folder: Path) -> Exported:
    """The folder's model in ONNX Runtime on the CPU."""
    session = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])

    def run(log_mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, embeddings = session.run(list(OUTPUTS), {"log_mel": log_mel})
        return logits, embeddings

    return run
