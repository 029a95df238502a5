"""AST and SSAST checkpoints to ONNX for the TensorRT provider of ONNX Runtime: no operator is ONNX Runtime's alone.

One that TensorRT lacks would leave it several parts of the graph, and each of their inputs would need a profile.

float32 float16     as for ONNX, with the softmax in float32 too
"""

from functools import partial
from pathlib import Path

from export.attention import SteadyAttention
from export.clips import Clips
from export.folder import check_precision, make_export
from export.parity import Parity
from export.to_onnx import open_onnx, write_onnx
from model.checkpoint import Checkpoint

PRECISIONS = ("float32", "float16")


def to_onnx_tensorrt(
    checkpoint: Checkpoint, folder: str | Path, precision: str = "float16", clips: Clips | None = None
) -> Parity:
    """Export, and compare with the checkpoint; raises as `make_export`."""
    check_precision(checkpoint, "onnx-tensorrt", precision, PRECISIONS)
    write = partial(write_onnx, attention=SteadyAttention)
    return make_export(checkpoint, folder, "onnx-tensorrt", precision, write, open_onnx, clips)
