"""Where a served model comes from: a checkpoint's folder or an export's; and opening runtimes from it."""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

import torch
from safetensors import SafetensorError

from model.checkpoint import Checkpoint
from model.features import LogMel
from model.registry import find_checkpoint
from server.exports import EXPORTABLE, describe, get_export, is_export, open_export, runtime_folder, weights_sha256
from server.runtime_choice import Candidate
from server.runtimes.base import Runtime
from server.runtimes.exported import Export, read_export
from server.runtimes.onnx_runtime import OnnxRuntime
from server.runtimes.openvino_runtime import OpenVinoRuntime
from server.runtimes.separate import SeparateRuntime
from server.runtimes.tensorrt_runtime import TensorRtRuntime
from server.serving_errors import RuntimeUnavailableError

Load = Callable[[Path, str], Checkpoint]


class Source:
    """One model on disk; weights are loaded only for a runtime that needs them."""

    def __init__(self, name: str, cache: Path | None, load: Load) -> None:
        """Raises: UnknownModelError."""
        self.folder = find_checkpoint(name)
        self.cache = runtime_folder(cache)
        self.export: Export | None = read_export(self.folder) if is_export(self.folder) else None
        self._load = load
        self._loaded: dict[str, Checkpoint] = {}

    @cached_property
    def described(self) -> Checkpoint:
        """The checkpoint less its network.

        Raises: CheckpointError, BrokenExportError.
        """
        if self.export is not None:
            return open_export(self.export)
        try:
            return describe(self.folder, weights_sha256(self.folder))
        except (OSError, ValueError, LookupError, TypeError, SafetensorError):
            return self.loaded("cpu")  # the strict loader finds what is wrong, and says it

    def loaded(self, device: str) -> Checkpoint:
        """The checkpoint with its network on a device; raises CheckpointError."""
        if device not in self._loaded:
            self._loaded[device] = self._load(self.folder, device)
        return self._loaded[device]

    def open(self, candidate: Candidate, device: str, largest_batch: int, separate: bool = False) -> Runtime:
        """Opens one runtime on one device, exporting first where that was not done yet.

        `separate` gives torch on a CPU of few cores a process of its own for batches side by side: it needs the
        interpreter between any two operators.

        Raises: RuntimeRefusedError; CheckpointError.
        """
        if candidate.runtime == "torch":
            if candidate.precision == "int8":
                raise RuntimeUnavailableError(
                    "the torch runtime has no int8; openvino and onnx have, for AST and SSAST"
                )
            from server.runtimes.torch_runtime import TorchRuntime, open_torch  # with Numba, which exports do not need

            checkpoint = self.loaded(device)
            runtime = TorchRuntime(checkpoint, device, candidate.precision)
            if not separate or runtime.most_batches == 1:
                return runtime
            threads, weights = torch.get_num_threads(), checkpoint.weights_sha256
            opening = partial(open_torch, self.folder, device, candidate.precision, threads, weights)
            return SeparateRuntime(runtime, opening)
        check_device(candidate, device)
        if self.described.config.backbone not in EXPORTABLE:
            raise RuntimeUnavailableError(
                f"a {self.described.config.backbone} model runs in torch only, where its selective scan is native"
            )
        if self.export is not None:
            export = self.export
        else:
            sought = self.folder, self.described, candidate.target, candidate.precision, device, self.cache
            export = get_export(*sought)
        features = LogMel(self.described.config.features)  # its own, for each device has one
        return _open(export, features, device, largest_batch)


def check_device(candidate: Candidate, device: str) -> None:
    """Raises: RuntimeUnavailableError for a runtime on a kind of device that it does not know."""
    on_gpu = torch.device(device).type == "cuda"
    if candidate.runtime == "openvino" and on_gpu:
        raise RuntimeUnavailableError("OpenVINO serves from the CPU; set the device to cpu")
    if candidate.runtime in ("tensorrt", "onnx-tensorrt") and not on_gpu:
        raise RuntimeUnavailableError("TensorRT needs an NVIDIA GPU, and the device is a CPU")


def _open(export: Export, features: LogMel, device: str, largest_batch: int) -> Runtime:
    match export.runtime:
        case "openvino":
            return OpenVinoRuntime(export, features, device)
        case "tensorrt":
            return TensorRtRuntime(export, features, device)
        case _:
            return OnnxRuntime(export, features, device, largest_batch)
