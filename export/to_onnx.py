"""AST and SSAST checkpoints to ONNX: one self-describing folder that the server reads from disk.

export.json          runtime, precision, opset, the source weights' sha256, versions, measured parity
model.onnx           log_mel float32 (batch, frames, mels) → logits float32 (batch, classes); only batch is dynamic
config.json labels.json golden.safetensors README.md     the checkpoint's own

ExportError(ValueError)
  NotExportableError     a network whose selective scan ONNX and TensorRT cannot express
  ParityError            the exported model does not give the checkpoint's logits; nothing is kept
"""

import json
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import onnx
import torch
from torch import nn

from export.parity import Parity, measure_parity, session_logits
from model.checkpoint import Checkpoint

OPSET = 18
"""LayerNormalization is one operator from opset 17 on; older graphs split it and lose precision in half floats."""

TOLERANCE = 1e-4
"""Largest difference of a float32 export's logits on the golden clip."""

EXPORTABLE = ("ast", "ssast")


class ExportError(ValueError):
    """A checkpoint cannot be exported; the message says why in one sentence."""


class NotExportableError(ExportError):
    """The network has no form in the target."""


class ParityError(ExportError):
    """The exported model computes something else than the checkpoint."""


def to_onnx(checkpoint: Checkpoint, folder: str | Path) -> Parity:
    """Export in float32 and check the result against the golden clip; the folder appears whole or not at all.

    Raises: NotExportableError for Mamba networks; ParityError if the export's logits drift; ExportError if the folder
    is there already.
    """
    folder = Path(folder).absolute()
    if checkpoint.config.backbone not in EXPORTABLE:
        raise NotExportableError(
            f"{checkpoint.name} is a {checkpoint.config.backbone} model: ONNX and TensorRT have no selective scan, so"
            " Mamba networks are served by the torch runtime, on their native scan; export an AST or SSAST checkpoint"
        )
    if folder.exists():
        raise ExportError(f"{folder} exists already; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        write_graph(checkpoint.network, log_mel_example(checkpoint), new / "model.onnx")
        parity = measure_parity(checkpoint, lambda log_mel: session_logits(new / "model.onnx", log_mel))
        if not parity.max_abs_diff <= TOLERANCE:
            raise ParityError(f"the export's logits differ by {parity.max_abs_diff:.2g}, more than {TOLERANCE:g}")
        _describe(checkpoint, new, parity)
        new.rename(folder)
    return parity


def log_mel_example(checkpoint: Checkpoint) -> torch.Tensor:
    """Log-mel (2, T, F) to trace with: a batch of 1 would be taken for a constant."""
    features = checkpoint.config.features
    return torch.zeros(2, features.frames, features.mels)


def write_graph(network: nn.Module, log_mel: torch.Tensor, path: Path) -> None:
    """Trace the network into an ONNX file with a dynamic batch, and check the file.

    Raises: ExportError if the written graph is not valid ONNX or its batch is not dynamic.
    """
    batch = torch.export.Dim("batch", min=1, max=1024)
    with torch.inference_mode(False), torch.no_grad():
        torch.onnx.export(
            network,
            (log_mel,),
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=["log_mel"],
            output_names=["logits"],
            dynamic_shapes=({0: batch},),
            external_data=False,
            verbose=False,
        )
    graph = onnx.load(path)
    try:
        onnx.checker.check_model(graph, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"torch wrote an invalid graph: {error}") from error
    if graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value:
        raise ExportError("torch wrote a graph with a fixed batch")


def _describe(checkpoint: Checkpoint, folder: Path, parity: Parity) -> None:
    for name in ("config.json", "labels.json", "golden.safetensors", "README.md"):
        shutil.copy(checkpoint.folder / name, folder / name)
    description = {
        "runtime": "onnx",
        "precision": "float32",
        "opset": OPSET,
        "source_weights_sha256": checkpoint.weights_sha256,
        "versions": {"torch": torch.__version__, "onnx": onnx.__version__},
        "parity": asdict(parity),
    }
    (folder / "export.json").write_text(json.dumps(description, indent=2) + "\n")
