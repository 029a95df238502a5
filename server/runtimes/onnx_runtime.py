"""ONNX Runtime: its CPU kernels, CUDA, or TensorRT inside it; tensors are bound where torch computed them.

On a GPU batches are filled up to one of a few sizes, so that every shape is known, tuned and warm before traffic comes;
TensorRT's provider would else build a new engine, for about a minute, inside somebody's request.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.features import LogMel
from server.devices import device_index
from server.runtimes.exported import OUTPUTS, Export, ExportedRuntime
from server.serving_errors import BrokenExportError, RuntimeUnavailableError

Provider = tuple[str, dict[str, str]]


class OnnxRuntime(ExportedRuntime):
    """One export in one session, warm for every batch that a GPU will see."""

    def __init__(self, export: Export, features: LogMel, device: str, largest_batch: int = 64) -> None:
        super().__init__(export, features, device)
        self._buckets = batch_buckets(largest_batch) if self._device.type == "cuda" else ()
        shape = features.config.frames, features.config.mels
        self._session = _open(export, providers(export, device, shape, largest_batch))
        for size in self._buckets:
            self._run_bound(torch.zeros(size, *shape, device=self._device))

    def close(self) -> None:
        """Gives back the session's memory."""
        del self._session

    def _infer(self, log_mel: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """As all runtimes'. In int8 one window after the other: the operators quantise a whole batch with one scale.

        So a window's answer hung on its company, by 0.06 in the logits; on a CPU a batch gains nothing anyway.
        """
        together = 1 if self.info.precision == "int8" else len(log_mel)
        answers = [self._infer_filled(part) for part in log_mel.split(together)]
        logits, embeddings = (torch.cat(parts).cpu().numpy() for parts in zip(*answers, strict=True))
        return logits, embeddings

    def _infer_filled(self, log_mel: Tensor) -> list[Tensor]:
        return [answer[: len(log_mel)] for answer in self._run_bound(fill_up(log_mel, self._buckets))]

    def _run_bound(self, log_mel: Tensor) -> list[Tensor]:
        """Runs on tensors where they are: nothing is copied between host and device but the answers."""
        binding = self._session.io_binding()
        widths = [output.shape[1] for output in self._session.get_outputs()]
        answers = [torch.empty(len(log_mel), width, device=self._device) for width in widths]
        _bind(binding.bind_input, "log_mel", log_mel)
        for name, answer in zip(OUTPUTS, answers, strict=True):
            _bind(binding.bind_output, name, answer)
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()  # the session has a stream of its own
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return answers


def batch_buckets(largest: int) -> tuple[int, ...]:
    """Powers of two below the largest batch, and that batch."""
    powers = [2**power for power in range(largest.bit_length()) if 2**power < largest]
    return (*powers, largest)


def fill_up(log_mel: Tensor, buckets: tuple[int, ...]) -> Tensor:
    """Appends rows of zeros up to the smallest bucket that holds the batch; larger batches stay as they are."""
    size = next((bucket for bucket in buckets if bucket >= len(log_mel)), len(log_mel))
    return torch.cat([log_mel, log_mel.new_zeros(size - len(log_mel), *log_mel.shape[1:])])


def providers(export: Export, device: str, shape: tuple[int, int], largest_batch: int) -> list[Provider]:
    """Who executes, the first that can; `shape` is (frames, mels) of the log-mel."""
    if device == "cpu":
        return [("CPUExecutionProvider", {})]
    cuda = {
        "device_id": str(device_index(device)),
        "arena_extend_strategy": "kSameAsRequested",  # else memory doubles with every growth
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": "0",  # else float32 would not be
    }
    chosen: list[Provider] = [("CUDAExecutionProvider", cuda)]
    if export.runtime == "onnx-tensorrt":
        chosen.insert(0, ("TensorrtExecutionProvider", tensorrt_options(export, device, shape, largest_batch)))
    return chosen


def tensorrt_options(export: Export, device: str, shape: tuple[int, int], largest_batch: int) -> dict[str, str]:
    """Options of ONNX Runtime's TensorRT provider, by the names of its documentation.

    Its profile covers every batch in one engine. Its caches stand in the export's folder: the provider keys them by
    the graph's names, the GPU and versions, but not by the weights.
    """
    batches = {"min": 1, "opt": max(1, largest_batch // 4), "max": largest_batch}
    options = {f"trt_profile_{name}_shapes": f"log_mel:{n}x{shape[0]}x{shape[1]}" for name, n in batches.items()}
    options |= {"device_id": str(device_index(device)), "trt_layer_norm_fp32_fallback": "1"}
    if export.precision == "float16":
        options["trt_fp16_enable"] = "1"  # else TensorRT takes no tensor in half precision
    folder = str(export.folder / "engines")
    options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": folder, "trt_engine_cache_prefix": "hark"}
    return options | {"trt_timing_cache_enable": "1", "trt_timing_cache_path": folder}


def _bind(bind: Any, name: str, tensor: Tensor) -> None:
    place = tensor.device.type, tensor.device.index or 0
    bind(name, *place, np.float32, tuple(tensor.shape), tensor.data_ptr())


def _open(export: Export, chosen: list[Provider]) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeUnavailableError("ONNX Runtime is not installed; install Hark with its cpu extra") from error
    missing = [name for name, _ in chosen if name not in onnxruntime.get_available_providers()]
    if missing:
        raise RuntimeUnavailableError(f"this ONNX Runtime has no {missing[0]}; install Hark with its gpu extra")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores to others
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(export.model, options, providers=chosen)
    except Exception as error:  # its errors have no common base
        raise BrokenExportError(f"ONNX Runtime cannot read {export.model}") from error
