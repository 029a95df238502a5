"""All of a TensorRT export but TensorRT: the typed graph, the profile, caches, keys, and what is said when it fails.

The library cannot be installed where these tests run; `tests/tensorrt_standin.py` records what it is asked for.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import onnx
import pytest
import torch
from onnx import TensorProto

from export.attention import SteadyAttention, with_attention
from export.errors import ExportError, MissingPackageError
from model.checkpoint import Checkpoint
from tests.tensorrt_standin import StandIn


def exporter(monkeypatch: pytest.MonkeyPatch, fail: str = "") -> tuple[ModuleType, StandIn]:
    trt = StandIn(fail)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.delitem(sys.modules, "export.to_tensorrt", raising=False)
    module = importlib.import_module("export.to_tensorrt")
    for name in ("export.to_tensorrt", "tensorrt"):  # the module keeps its stand-in; torch must not find one
        monkeypatch.delitem(sys.modules, name)
    return module, trt


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.delitem(sys.modules, "export.to_tensorrt", raising=False)
    with pytest.raises(MissingPackageError, match="tensorrt"):
        importlib.import_module("export.to_tensorrt")


def test_without_a_gpu_nothing_is_built(small_ast: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, trt = exporter(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ExportError, match="GPU"):
        module.to_tensorrt(small_ast, tmp_path / "out")
    assert not trt.calls


def test_the_graph_is_typed_norms_and_softmax_in_float32(
    small_ast: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _ = exporter(monkeypatch)
    model = onnx.shape_inference.infer_shapes(onnx.load(module.write_typed_graph(small_ast, "bfloat16", tmp_path)))
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("Softmax", "LayerNormalization"):
            assert types[node.input[0]] == TensorProto.FLOAT, node.name
    weights = [types[node.input[1]] for node in model.graph.node if node.op_type == "MatMul"]
    assert weights.count(TensorProto.BFLOAT16) >= 8
    assert {value.type.tensor_type.elem_type for value in model.graph.output} == {TensorProto.FLOAT}
    assert all(not node.domain for node in model.graph.node)  # the contrib operators are ONNX Runtime's alone


def test_steady_attention_computes_the_same(small_ast: Checkpoint) -> None:
    log_mel = torch.randn(2, 64, 32)
    with torch.inference_mode():
        expected = small_ast.network(log_mel)
        torch.testing.assert_close(with_attention(small_ast.network, SteadyAttention)(log_mel), expected)


def test_a_build_is_strongly_typed_covers_every_batch_and_remembers_timings(
    small_ast: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, trt = exporter(monkeypatch)
    timings = tmp_path / "cache" / "timings"
    said: list[str] = []
    assert module.build_plan(Path("graph.onnx"), small_ast, 64, timings, said.append) == b"plan"
    assert ("create_network", 1 << 1) in trt.calls
    assert ("clear_flag", "tf32") in trt.calls
    assert ("set_shape", "log_mel", (1, 64, 32), (16, 64, 32), (64, 64, 32)) in trt.calls
    assert said == ["Building Engine, 3 steps"]
    assert timings.read_bytes() == b"+measured"
    assert list(timings.parent.iterdir()) == [timings]
    module.build_plan(Path("graph.onnx"), small_ast, 64, timings, said.append)
    assert ("set_timing_cache", b"+measured", False) in trt.calls


@pytest.mark.parametrize("unusable", [b"another GPU's", b"half a fi"])
def test_timings_of_another_gpu_or_cut_off_count_as_none(
    small_ast: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unusable: bytes
) -> None:
    module, _ = exporter(monkeypatch)
    timings = tmp_path / "timings"
    timings.write_bytes(unusable)
    module.build_plan(Path("graph.onnx"), small_ast, 1, timings, lambda _: None)
    assert timings.read_bytes() == b"+measured"


@pytest.mark.parametrize(
    ("fail", "words"), [("parse", "no importer"), ("profile", "batches"), ("build", "found no plan")]
)
def test_what_tensorrt_refuses_is_said(
    small_ast: Checkpoint, monkeypatch: pytest.MonkeyPatch, fail: str, words: str
) -> None:
    module, _ = exporter(monkeypatch, fail)
    with pytest.raises(ExportError, match=words):
        module.build_plan(Path("graph.onnx"), small_ast, 8, None, lambda _: None)


@pytest.mark.parametrize(("fail", "words"), [("deserialise", "cannot read"), ("context", "no memory")])
def test_a_plan_that_cannot_be_opened_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: str, words: str
) -> None:
    module, _ = exporter(monkeypatch, fail)
    (tmp_path / "model.plan").write_bytes(b"plan")
    with pytest.raises(ExportError, match=words):
        module.open_plan(tmp_path)


@pytest.mark.parametrize(("largest", "tuned"), [(1, 1), (3, 1), (64, 16)])
def test_the_profile_holds_every_batch(monkeypatch: pytest.MonkeyPatch, largest: int, tuned: int) -> None:
    module, _ = exporter(monkeypatch)
    assert module.batch_profile(largest) == {"min": 1, "opt": tuned, "max": largest}
