"""TensorRT's own runtime: a plan built for this GPU, on torch's tensors.

Written to the Python API of TensorRT 10.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.features import LogMel
from server.runtimes.exported import OUTPUTS, Export, ExportedRuntime
from server.serving_errors import BrokenExportError, RuntimeUnavailableError


class TensorRtRuntime(ExportedRuntime):
    """One plan with one execution context, used by one thread."""

    def __init__(self, export: Export, features: LogMel, device: str) -> None:
        check_plan(export, torch.cuda.get_device_name(device) if torch.cuda.is_available() else "none")
        super().__init__(export, features, device)
        self._tensorrt = _import()
        self._logger = self._tensorrt.Logger(self._tensorrt.Logger.WARNING)
        self._runtime = self._tensorrt.Runtime(self._logger)  # must outlive its engine
        with torch.cuda.device(self._device):
            self._stream = torch.cuda.Stream()
            self._engine, self._context = self._deserialise(export)
        self._largest_batch = int(export.about["batches"]["max"])

    def close(self) -> None:
        """Gives back the plan's memory, the context first."""
        del self._context, self._engine, self._runtime, self._stream
        torch.cuda.empty_cache()

    def _infer(self, log_mel: Tensor) -> tuple[np.ndarray, np.ndarray]:
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):  # and on its device; on torch's default stream TensorRT waits more often
            parts = [self._enqueue(part) for part in log_mel.split(self._largest_batch)]
            logits, embeddings = (torch.cat(answers).cpu().numpy() for answers in zip(*parts, strict=True))
        return logits, embeddings

    def _enqueue(self, log_mel: Tensor) -> list[Tensor]:
        """Starts one batch that the plan's profile covers."""
        self._context.set_input_shape("log_mel", tuple(log_mel.shape))
        shapes = [tuple(self._context.get_tensor_shape(name)) for name in OUTPUTS]
        answers = [torch.empty(shape, dtype=torch.float32, device=self._device) for shape in shapes]
        for name, tensor in zip(("log_mel", *OUTPUTS), (log_mel, *answers), strict=True):
            self._context.set_tensor_address(name, tensor.data_ptr())
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("TensorRT could not start the batch")
        return answers

    def _deserialise(self, export: Export) -> tuple[Any, Any]:
        """The plan's engine, and a context to run it in; TensorRT answers None where it has none."""
        engine = self._runtime.deserialize_cuda_engine(export.model.read_bytes())
        if engine is None:
            raise BrokenExportError(f"TensorRT cannot read {export.model}; export the checkpoint again")
        context = engine.create_execution_context()
        if context is None:
            raise RuntimeUnavailableError(f"TensorRT has no memory to run {export.model} in; its log says more")
        return engine, context


def check_plan(export: Export, gpu: str) -> None:
    """A plan fits one kind of GPU and one version of TensorRT; loading another's can crash the process.

    Raises: RuntimeUnavailableError, BrokenExportError.
    """
    installed = _import().__version__
    built = export.about.get("versions", {}).get("tensorrt")
    if export.about.get("gpu") != gpu:
        raise BrokenExportError(f"the plan in {export.folder} is for {export.about.get('gpu')}, and this GPU is {gpu}")
    if built != installed:
        raise BrokenExportError(f"the plan in {export.folder} is for TensorRT {built}, and installed is {installed}")


def _import() -> Any:
    try:
        import tensorrt
    except ImportError as error:
        raise RuntimeUnavailableError("TensorRT is not installed; install Hark with its gpu extra") from error
    return tensorrt
