"""What ONNX Runtime is told on each device, and what is said where it cannot serve."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint
from server.runtimes import onnx_runtime
from server.runtimes.exported import Export, read_export
from server.runtimes.onnx_runtime import OnnxRuntime, batch_buckets, fill_up, providers, tensorrt_options
from server.serving_errors import BrokenExportError, RuntimeUnavailableError


@pytest.mark.parametrize(("largest", "buckets"), [(1, (1,)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12))])
def test_buckets_end_with_the_largest_batch(largest: int, buckets: tuple[int, ...]) -> None:
    assert batch_buckets(largest) == buckets


@pytest.mark.parametrize(("rows", "filled"), [(1, 1), (3, 4), (8, 8), (9, 9)])
def test_a_batch_is_filled_up_to_a_bucket_with_silence(rows: int, filled: int) -> None:
    log_mel = torch.ones(rows, 4, 2)
    result = fill_up(log_mel, (1, 2, 4, 8))
    assert len(result) == filled
    assert torch.equal(result[:rows], log_mel)
    assert not result[rows:].any()


def described(folder: Path, runtime: str = "onnx", precision: str = "float16") -> Export:
    return Export(folder, runtime, precision, "", {})


def test_tensorrts_profile_and_caches_are_explicit(tmp_path: Path) -> None:
    """All models shared a folder of engines, in which a retrained one found those of its old weights."""
    options = tensorrt_options(described(tmp_path), "cuda:1", (1024, 128), 64)
    assert options["trt_profile_min_shapes"] == "log_mel:1x1024x128"
    assert options["trt_profile_opt_shapes"] == "log_mel:16x1024x128"
    assert options["trt_profile_max_shapes"] == "log_mel:64x1024x128"
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(tmp_path / "engines")
    assert options["device_id"] == "1"
    assert options["trt_fp16_enable"] == "1"
    assert "trt_fp16_enable" not in tensorrt_options(described(tmp_path, precision="float32"), "cuda", (1, 1), 1)


def test_each_device_has_its_providers_and_only_the_asked_one_gets_tensorrt() -> None:
    def names(runtime: str, device: str) -> list[str]:
        return [name for name, _ in providers(described(Path(), runtime), device, (1, 1), 8)]

    assert names("onnx", "cpu") == ["CPUExecutionProvider"]
    assert names("onnx", "cuda") == ["CUDAExecutionProvider"]
    assert names("onnx-tensorrt", "cuda:2") == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]


def test_every_bucket_is_run_before_traffic_comes(
    small_ast: Checkpoint, export_of: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only batches of 1 and the largest were warm; the others were tuned inside somebody's request."""
    export, sizes = read_export(export_of("onnx", "int8")), []

    def on_gpu(runtime: OnnxRuntime, *_: object) -> None:
        runtime._device = SimpleNamespace(type="cuda")

    def run(_: OnnxRuntime, log_mel: torch.Tensor) -> None:
        sizes.append(len(log_mel))

    monkeypatch.setattr(onnx_runtime.ExportedRuntime, "__init__", on_gpu)
    monkeypatch.setattr(onnx_runtime, "_open", lambda *_: None)
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: torch.empty(shape))
    monkeypatch.setattr(OnnxRuntime, "_run_bound", run)
    OnnxRuntime(export, small_ast.features, "cuda", largest_batch=6)
    assert sizes == [1, 2, 4, 6]


def test_an_int8_answer_does_not_hang_on_its_company(
    small_ast: Checkpoint, export_of: Callable[[str, str], Path]
) -> None:
    """One scale was for the whole batch: beside a loud window a quiet one's logits moved by 0.06."""
    runtime = OnnxRuntime(read_export(export_of("onnx", "int8")), small_ast.features, "cpu")
    waveforms = torch.randn(3, small_ast.config.window_samples, generator=torch.Generator().manual_seed(0)).numpy()
    waveforms[1:] *= 0.001
    lengths = np.full(3, small_ast.config.window_samples)
    together = runtime.run(waveforms, lengths)
    for row in range(3):
        alone = runtime.run(waveforms[row : row + 1], lengths[:1])
        np.testing.assert_array_equal(together.logits[row], alone.logits[0])
        np.testing.assert_array_equal(together.embeddings[row], alone.embeddings[0])


def test_a_missing_package_or_provider_and_a_broken_graph_are_one_sentence(
    small_ast: Checkpoint,
    export_of: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export = read_export(export_of("onnx", "int8"))
    with pytest.raises(RuntimeUnavailableError, match="CUDAExecutionProvider"):
        onnx_runtime._open(export, providers(export, "cuda", (64, 32), 8))
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BrokenExportError, match="cannot read"):
        OnnxRuntime(replace(export, folder=tmp_path), small_ast.features, "cpu")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeUnavailableError, match="cpu extra"):
        OnnxRuntime(export, small_ast.features, "cpu")
