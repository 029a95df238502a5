"""A network's ONNX graph: log_mel float32 (batch, frames, mels) → logits (batch, classes), embeddings (batch, width).

Only the batch is dynamic; a checkpoint for another length of sound is exported anew.
"""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from export.errors import ExportError, MissingPackageError
from model.checkpoint import Checkpoint
from model.precision import Precision, to_precision

try:
    import onnx
except ImportError as error:
    raise MissingPackageError("an export needs the package onnx", name="onnx") from error

OPSET = 18
"""LayerNormalization is one operator from opset 17 on; older graphs split it and lose precision in half floats."""

OUTPUTS = ("logits", "embeddings")


class _TwoOutputs(nn.Module):
    """The network's logits with the features before the head."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = self.network.embed(log_mel)  # type: ignore[operator, union-attr]
        return self.network.head(embeddings).float(), embeddings.float()  # type: ignore[operator, union-attr]


def log_mel_example(checkpoint: Checkpoint) -> Tensor:
    """Log-mel (2, T, F) to trace with: a batch of 1 would be taken for a constant."""
    features = checkpoint.config.features
    return torch.zeros(2, features.frames, features.mels)


def lowered(checkpoint: Checkpoint, precision: Precision) -> nn.Module:
    """The checkpoint's network in a precision, all but its patch layer, which is small.

    ONNX has no bfloat16 convolution before opset 22, and the norms of a convolutional stem become part of its
    convolutions in float32.
    """
    network = to_precision(checkpoint.network, precision)
    if hasattr(network, "patch_embed"):
        network.patch_embed = checkpoint.network.patch_embed
    return network


def write_graph(network: nn.Module, log_mel: Tensor, path: Path, metadata: dict[str, str] | None = None) -> None:
    """Trace the network into one ONNX file with a dynamic batch and both outputs, and check the file.

    metadata: shown by every ONNX tool; says whose weights these are.

    Raises: ExportError if the written graph is not valid ONNX or its batch is not dynamic.
    """
    batch = torch.export.Dim("batch", min=1, max=1024)
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # torch.export's, about itself
        torch.onnx.export(
            _TwoOutputs(network).eval(),
            (log_mel,),
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=["log_mel"],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: batch},),
            external_data=False,
            verbose=False,
        )
    graph = onnx.load(path)
    onnx.helper.set_model_props(graph, metadata or {})
    check_graph(graph)
    onnx.save(graph, path)


def check_graph(model: onnx.ModelProto) -> None:
    """Check names, types and shapes, and that the batch is dynamic from end to end.

    Raises: ExportError.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"torch wrote an invalid graph: {error}") from error
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.shape.dim[0].dim_value:
            raise ExportError(f"torch wrote a graph whose {value.name} have a fixed batch")
