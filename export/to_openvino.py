"""AST and SSAST checkpoints to OpenVINO's intermediate representation, for CPUs.

float32     as traced
bfloat16    weights on disk in float16; products, norms and sums run in bfloat16 where the processor has it
int8        the blocks' weights in eight bits, activations quantised by token and group while running; the rest as
            bfloat16 where the processor has it, else float32

The file is for one window: OpenVINO joins more operators where shapes are known, and on a CPU a batch gains nothing.
"""

from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from export.attention import SplitAttention, with_attention
from export.clips import Clips
from export.errors import ExportError, MissingPackageError
from export.folder import check_precision, make_export, metadata
from export.graph import OPSET, OUTPUTS, log_mel_example, write_graph
from export.int8 import compress_weights
from export.parity import Exported, Parity
from model.checkpoint import Checkpoint
from model.precision import best_cpu_precision

try:
    import openvino
except ImportError as error:
    raise MissingPackageError("an OpenVINO export needs the package openvino", name="openvino") from error

PRECISIONS = ("float32", "bfloat16", "int8")
MODEL = "model.xml"
WIDEST_GROUP = 768


def to_openvino(
    checkpoint: Checkpoint,
    folder: str | Path,
    precision: str = "float32",
    clips: Clips | None = None,
) -> Parity:
    """Export, and compare with the checkpoint; raises as `make_export`."""
    check_precision(checkpoint, "openvino", precision, PRECISIONS)
    options = compile_options(checkpoint, precision)
    return make_export(
        checkpoint,
        folder,
        "openvino",
        precision,
        write_openvino,
        lambda written: open_openvino(written, precision, options),
        clips,
    )


def write_openvino(checkpoint: Checkpoint, precision: str, folder: Path) -> dict[str, Any]:
    """Write model.xml and model.bin."""
    graph = folder / "graph.onnx"
    log_mel = log_mel_example(checkpoint)
    network = with_attention(checkpoint.network, SplitAttention)
    write_graph(network, log_mel, graph, metadata(checkpoint, precision))
    if precision == "int8":
        traced = onnx.load(graph)
        compress_weights(traced)
        onnx.save(traced, graph)
    model = openvino.Core().read_model(graph)
    model.reshape([1, *log_mel.shape[1:]])
    try:
        openvino.save_model(model, folder / MODEL, compress_to_fp16=precision == "bfloat16")
    except RuntimeError as error:  # its words are a C++ stream's
        raise ExportError(f"OpenVINO cannot write its model to {folder}; the disk may be full") from error
    graph.unlink()
    versions = {"torch": torch.__version__, "onnx": onnx.__version__, "openvino": openvino.__version__}
    return {"opset": OPSET, "versions": versions, "compile": compile_options(checkpoint, precision)}


def compile_options(checkpoint: Checkpoint, precision: str) -> dict[str, str]:
    """What OpenVINO must be told when it compiles the model on any machine.

    One group per token and width of the network: the fastest (measured against groups of 32 to 3072 on AST-base), and
    finer than one scale per tensor.
    """
    if precision != "int8":
        return {}
    width = int(checkpoint.config.backbone_config.get("width", WIDEST_GROUP))
    return {"DYNAMIC_QUANTIZATION_GROUP_SIZE": str(gcd(width, WIDEST_GROUP))}


def open_openvino(folder: Path, precision: str, options: dict[str, str]) -> Exported:
    """The folder's model on this machine's CPU; what is not float32 runs in bfloat16 where that is native."""
    native = precision != "float32" and best_cpu_precision() == "bfloat16"
    hints = {"INFERENCE_PRECISION_HINT": "bf16" if native else "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(folder / MODEL, "CPU", {**hints, **options})

    def infer_one(log_mel: np.ndarray) -> list[np.ndarray]:
        outputs = compiled([log_mel])
        return [outputs[name].copy() for name in OUTPUTS]  # the memory is the next window's too

    def run(log_mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answers = [infer_one(window[None]) for window in log_mel]
        logits, embeddings = (np.concatenate(outputs) for outputs in zip(*answers, strict=True))
        return logits, embeddings

    return run
