"""AST and SSAST checkpoints to a TensorRT plan, for the GPU it is built on.

The network is strongly typed: every tensor has the type that the graph gives it, so TensorRT never lowers a LayerNorm
or a softmax by itself (what goes wrong otherwise: NVIDIA/TensorRT#4723). Written to the Python API of TensorRT 10; in
TensorRT 11 strong typing is the only kind and the flag is ignored.

float32 bfloat16 float16     products in that type; patches, norms, softmax, residual sums and the head in float32

A plan serves batches from 1 to the largest one; it is tuned for a middle one. It fits one kind of GPU and one version
of TensorRT only; export.json says which.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from export.attention import SteadyAttention, with_attention
from export.clips import Clips
from export.errors import ExportError, MissingPackageError
from export.folder import check_precision, make_export, metadata
from export.graph import OPSET, OUTPUTS, log_mel_example, lowered, write_graph
from export.parity import Exported, Parity
from model.checkpoint import Checkpoint
from model.precision import Precision

try:
    import tensorrt
except ImportError as error:
    raise MissingPackageError("a TensorRT export needs the package tensorrt (10.x)", name="tensorrt") from error

PRECISIONS = ("float32", "bfloat16", "float16")
MODEL = "model.plan"
LARGEST_BATCH = 64
WORKSPACE_BYTES = 4 * 2**30

Progress = Callable[[str], None]


def to_tensorrt(
    checkpoint: Checkpoint,
    folder: str | Path,
    precision: str = "bfloat16",
    clips: Clips | None = None,
    largest_batch: int = LARGEST_BATCH,
    timing_cache: Path | None = None,
    progress: Progress = lambda _: None,
) -> Parity:
    """Build a plan for this machine's GPU, which takes minutes, and compare it with the checkpoint.

    timing_cache: a file that remembers what was measured, so that the next build is quicker.

    Raises: as `make_export`; ExportError where there is no GPU or TensorRT refuses the graph.
    """
    check_precision(checkpoint, "tensorrt", precision, PRECISIONS)
    if not torch.cuda.is_available():
        raise ExportError("a TensorRT plan is built on the GPU that will run it, and there is none that torch can use")

    def write(checkpoint: Checkpoint, precision: str, new: Path) -> dict[str, Any]:
        graph = write_typed_graph(checkpoint, precision, new)
        plan = build_plan(graph, checkpoint, largest_batch, timing_cache, progress)
        graph.unlink()
        (new / MODEL).write_bytes(plan)
        versions = {"torch": torch.__version__, "tensorrt": tensorrt.__version__}
        gpu = torch.cuda.get_device_name()
        return {"opset": OPSET, "versions": versions, "gpu": gpu, "batches": batch_profile(largest_batch)}

    return make_export(checkpoint, folder, "tensorrt", precision, write, open_plan, clips)


def write_typed_graph(checkpoint: Checkpoint, precision: str, folder: Path) -> Path:
    """Write the ONNX graph whose types TensorRT will follow, and answer its path."""
    network = with_attention(lowered(checkpoint, cast(Precision, precision)), SteadyAttention)
    path = folder / "graph.onnx"
    write_graph(network, log_mel_example(checkpoint), path, metadata(checkpoint, precision))
    return path


def batch_profile(largest: int) -> dict[str, int]:
    """The batches that a plan must serve, and the one it is tuned for: a GPU at work sees neither 1 nor the largest."""
    return {"min": 1, "opt": max(1, largest // 4), "max": largest}


def build_plan(
    graph: Path, checkpoint: Checkpoint, largest_batch: int, timing_cache: Path | None, progress: Progress
) -> bytes:
    """Parse, tune and serialise.

    Raises: ExportError with TensorRT's own words where it refuses the graph or finds no plan.
    """
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        faults = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ExportError(f"TensorRT cannot read the graph: {faults}")
    config = _configure(builder, checkpoint, largest_batch, progress)
    cache = _read_timings(config, timing_cache)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError("TensorRT found no plan for the network; its log says why")
    if timing_cache is not None:
        timing_cache.parent.mkdir(parents=True, exist_ok=True)
        partial = timing_cache.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(bytes(cache.serialize()))
        partial.replace(timing_cache)
    return bytes(plan)


def _configure(builder: Any, checkpoint: Checkpoint, largest_batch: int, progress: Progress) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # on by default, and float32 would not be
    profile = builder.create_optimization_profile()
    features = checkpoint.config.features
    batches = batch_profile(largest_batch)
    shapes = [(batches[name], features.frames, features.mels) for name in ("min", "opt", "max")]
    profile.set_shape("log_mel", *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise ExportError(f"TensorRT refuses batches from 1 to {largest_batch}")
    config.progress_monitor = _make_monitor(progress)
    return config


def _read_timings(config: Any, path: Path | None) -> Any:
    """Give the builder what it measured before; an unreadable or foreign cache counts as empty."""
    data = path.read_bytes() if path is not None and path.is_file() else b""
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _make_monitor(progress: Progress) -> Any:
    """TensorRT's view of a listener: it is told the name of each phase as it begins."""

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            tensorrt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                progress(f"{phase_name}, {num_steps} steps")

        def step_complete(self, phase_name: str, step: int) -> bool:
            return True  # False would cancel the build

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()


def open_plan(folder: Path) -> Exported:
    """The folder's plan on the current GPU."""
    runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
    engine = runtime.deserialize_cuda_engine((folder / MODEL).read_bytes())
    if engine is None:
        raise ExportError("TensorRT cannot read the plan that it has just written; its log says why")
    context = engine.create_execution_context()
    if context is None:
        raise ExportError("TensorRT has no memory to run the plan that it has just written; its log says more")

    def run(log_mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        given = torch.from_numpy(log_mel).cuda().contiguous()
        context.set_input_shape("log_mel", tuple(given.shape))
        shapes = [tuple(context.get_tensor_shape(name)) for name in OUTPUTS]
        answers = [torch.empty(shape, dtype=torch.float32, device=given.device) for shape in shapes]
        for name, tensor in zip(("log_mel", *OUTPUTS), (given, *answers), strict=True):
            context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.current_stream()
        if not context.execute_async_v3(stream.cuda_stream):
            raise ExportError("TensorRT could not run the plan; its log says why")
        stream.synchronize()
        logits, embeddings = (answer.cpu().numpy() for answer in answers)
        return logits, embeddings

    run.runtime = runtime  # type: ignore[attr-defined]  # lives as long as its engine
    return run
