"""What ONNX Runtime is told on each device, and what is said where it cannot serve."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.checkpoint import Checkpoint
from server.runtimes import onnx_runtime
from server.runtimes.exported import read_export
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


def test_tensorrts_profile_and_caches_are_explicit(tmp_path: Path) -> None:
    options = tensorrt_options("cuda:1", (1024, 128), 64, tmp_path)
    assert options["trt_profile_min_shapes"] == "log_mel:1x1024x128"
    assert options["trt_profile_opt_shapes"] == "log_mel:16x1024x128"
    assert options["trt_profile_max_shapes"] == "log_mel:64x1024x128"
    assert options["trt_engine_cache_path"] == options["trt_timing_cache_path"] == str(tmp_path)
    assert options["device_id"] == "1"
    assert not [name for name in tensorrt_options("cuda", (1, 1), 1, None) if "cache" in name]


def test_each_device_has_its_providers_and_only_the_asked_one_gets_tensorrt() -> None:
    assert [name for name, _ in providers("onnx", "cpu", (1, 1), 8, None)] == ["CPUExecutionProvider"]
    assert [name for name, _ in providers("onnx", "cuda", (1, 1), 8, None)] == ["CUDAExecutionProvider"]
    names = [name for name, _ in providers("onnx-tensorrt", "cuda:2", (1, 1), 8, None)]
    assert names == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]


def test_a_missing_package_or_provider_and_a_broken_graph_are_one_sentence(
    small_ast: Checkpoint,
    export_of: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export = read_export(export_of("onnx", "int8"))
    with pytest.raises(RuntimeUnavailableError, match="CUDAExecutionProvider"):
        onnx_runtime._open(export, providers("onnx", "cuda", (64, 32), 8, None))
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BrokenExportError, match="cannot read"):
        OnnxRuntime(replace(export, folder=tmp_path), small_ast.features, "cpu")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeUnavailableError, match="cpu extra"):
        OnnxRuntime(export, small_ast.features, "cpu")
