"""The TensorRT runtime against a recorded stand-in: the order of its calls, large batches, and what it refuses.

The library itself cannot be installed where these tests run.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from model.checkpoint import Checkpoint
from server.runtimes.exported import Export
from server.runtimes.tensorrt_runtime import TensorRtRuntime, check_plan
from server.serving_errors import BrokenExportError, RuntimeUnavailableError
from tests.tensorrt_standin import VERSION, StandIn

GPU = "NVIDIA H200"


@pytest.fixture
def plan(tmp_path: Path) -> Export:
    (tmp_path / "model.plan").write_bytes(b"plan")
    about = {"gpu": GPU, "versions": {"tensorrt": VERSION}, "batches": {"min": 1, "opt": 1, "max": 4}}
    return Export(tmp_path, "tensorrt", "bfloat16", "", about)


@contextmanager
def during(trt: StandIn, what: str) -> Iterator[None]:
    """Writes down where it begins and ends, among the library's calls."""
    trt.calls.append((what,))
    yield
    trt.calls.append((f"no longer {what}",))


def opened(monkeypatch: pytest.MonkeyPatch, plan: Export, checkpoint: Checkpoint, fail: str = "") -> tuple:
    """The runtime on tensors of the CPU, with torch's GPU functions out of the way."""
    trt = StandIn(fail)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    stream = SimpleNamespace(
        cuda_stream=7,
        wait_stream=lambda other: trt.calls.append(("wait_stream", other)),
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: GPU)
    monkeypatch.setattr(torch.cuda, "device", lambda _: during(trt, "on device"))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: during(trt, "on stream"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: "torch's")
    return TensorRtRuntime(plan, checkpoint.features, "cpu"), trt


def test_shape_then_addresses_then_start_on_the_devices_own_stream(
    small_ast: Checkpoint, plan: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context was made, and run, on the first GPU whatever the device, and on torch's default stream."""
    runtime, trt = opened(monkeypatch, plan, small_ast)
    opening = [("on device",), ("deserialize_cuda_engine",), ("create_execution_context",), ("no longer on device",)]
    assert trt.calls == opening
    trt.calls.clear()
    logits, embeddings = runtime._infer(torch.zeros(2, 64, 32))
    assert (logits.shape, embeddings.shape) == ((2, 6), (2, 32))
    addresses = [("set_tensor_address", name) for name in ("log_mel", "logits", "embeddings")]
    shape = ("set_input_shape", "log_mel", (2, 64, 32))
    running = [("on stream",), shape, *addresses, ("execute_async_v3", 7), ("no longer on stream",)]
    assert trt.calls == [("wait_stream", "torch's"), *running]
    assert (runtime.info.runtime, runtime.info.precision) == ("tensorrt", "bfloat16")


def test_a_batch_beyond_the_profile_runs_in_parts(
    small_ast: Checkpoint, plan: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, trt = opened(monkeypatch, plan, small_ast)
    logits, _ = runtime._infer(torch.zeros(9, 64, 32))
    assert len(logits) == 9
    assert [call[2][0] for call in trt.calls if call[0] == "set_input_shape"] == [4, 4, 1]


def test_a_batch_that_cannot_start_fails(small_ast: Checkpoint, plan: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, _ = opened(monkeypatch, plan, small_ast, fail="execute")
    with pytest.raises(RuntimeError, match="could not start"):
        runtime._infer(torch.zeros(1, 64, 32))


def test_a_plan_that_cannot_be_read_is_refused(
    small_ast: Checkpoint, plan: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BrokenExportError, match="cannot read"):
        opened(monkeypatch, plan, small_ast, fail="deserialise")
    with pytest.raises(RuntimeUnavailableError, match="no memory"):
        opened(monkeypatch, plan, small_ast, fail="context")


def test_a_plan_for_another_gpu_or_version_is_never_loaded(plan: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", StandIn())
    check_plan(plan, GPU)
    with pytest.raises(BrokenExportError, match="NVIDIA L4"):
        check_plan(plan, "NVIDIA L4")
    plan.about["versions"]["tensorrt"] = "10.8.0.1"
    with pytest.raises(BrokenExportError, match="installed is"):
        check_plan(plan, GPU)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(RuntimeUnavailableError, match="gpu extra"):
        check_plan(plan, GPU)
