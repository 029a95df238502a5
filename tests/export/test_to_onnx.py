"""AST to ONNX: the same answers after reload, any batch, and nothing half-written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from export import folder as export_folder
from export.errors import ExportError, NotExportableError, ParityError
from export.to_onnx import open_onnx, to_onnx
from export.to_onnx_tensorrt import to_onnx_tensorrt
from export.to_openvino import to_openvino
from model.checkpoint import Checkpoint
from server.runtimes.exported import read_export
from tests.small import save_small

ExportOf = Callable[[str, str], Path]


@pytest.mark.parametrize(("precision", "atol"), [("float32", 1e-4), ("float16", 2e-2), ("int8", 5e-2)])
@pytest.mark.parametrize("batch", [1, 5])
def test_any_batch_gives_the_checkpoints_logits_and_embeddings(
    small_ast: Checkpoint, export_of: ExportOf, precision: str, atol: float, batch: int
) -> None:
    log_mel = torch.randn(batch, 64, 32, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        embeddings = small_ast.network.embed(log_mel)
        logits = small_ast.network.head(embeddings)
    exported_logits, exported_embeddings = open_onnx(export_of("onnx", precision))(log_mel.numpy())
    np.testing.assert_allclose(exported_logits, logits, atol=atol)
    np.testing.assert_allclose(exported_embeddings, embeddings, atol=4 * atol)
    assert exported_logits.dtype == exported_embeddings.dtype == np.float32


def test_the_folder_describes_itself(small_ast: Checkpoint, export_of: ExportOf) -> None:
    folder = export_of("onnx", "float32")
    about = json.loads((folder / "export.json").read_text())
    assert about["source_weights_sha256"] == small_ast.weights_sha256
    assert (about["runtime"], about["precision"]) == ("onnx", "float32")
    assert about["versions"].keys() == {"torch", "onnx", "onnxruntime"}
    assert about["parity"]["relative_diff"] <= 1e-4
    assert about["parity"]["clips"] == 4
    for name in ("config.json", "labels.json", "golden.safetensors", "README.md"):
        assert (folder / name).read_bytes() == (small_ast.folder / name).read_bytes()


def test_the_graph_says_whose_it_is_and_keeps_norms_and_attention_whole(
    small_ast: Checkpoint, export_of: ExportOf
) -> None:
    model = onnx.load(export_of("onnx", "float32") / "model.onnx")
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["source_weights_sha256"] == small_ast.weights_sha256
    assert told["model"] == "ast-random"
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("LayerNormalization") == 6  # two per block, the final one, the head's
    assert operators.count("MultiHeadAttention") == 2
    assert "Softmax" not in operators
    assert [value.name for value in model.graph.output] == ["logits", "embeddings"]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_the_graph_for_the_tensorrt_provider_has_no_operator_that_tensorrt_lacks(
    small_ast: Checkpoint, tmp_path: Path, precision: str
) -> None:
    """With ONNX Runtime's own attention TensorRT got parts of the graph, whose inputs had no profile."""
    parity = to_onnx_tensorrt(small_ast, tmp_path / "out", precision)
    assert parity.relative_diff < 1e-3
    assert read_export(tmp_path / "out").runtime == "onnx-tensorrt"
    nodes = onnx.load(tmp_path / "out" / "model.onnx").graph.node
    assert "Softmax" in {node.op_type for node in nodes}
    assert {node.domain for node in nodes} == {""}


def test_eight_bit_weights_are_signed_and_the_head_stays_float(export_of: ExportOf) -> None:
    model = onnx.load(export_of("onnx", "int8") / "model.onnx")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
    assert len(products) == 8  # qkv, proj and the MLP's two in each of two blocks
    assert {types[node.input[1]] for node in products} == {onnx.TensorProto.INT8}
    heads = [t for t in model.graph.initializer if sorted(t.dims) == [6, 32]]
    assert [tensor.data_type for tensor in heads] == [onnx.TensorProto.FLOAT]


def test_a_mamba_network_is_refused_with_what_to_do_instead(small_aum: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(NotExportableError, match="torch runtime"):
        to_onnx(small_aum, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_precision_that_the_target_lacks_is_refused(small_ast: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(NotExportableError, match="float32, float16, int8"):
        to_onnx(small_ast, tmp_path / "out", "bfloat16")


@pytest.mark.parametrize(("to", "precisions"), [(to_onnx, ("float16", "int8")), (to_openvino, ("bfloat16", "int8"))])
def test_a_cnn_is_exported_in_float32_only(to: Callable[..., object], precisions: tuple[str], tmp_path: Path) -> None:
    """Its norms join its convolutions in float32: what was called float16 was none."""
    cnn = save_small(tmp_path / "cnn", "cnn")
    for precision in precisions:
        with pytest.raises(NotExportableError, match="float32 only"):
            to(cnn, tmp_path / "out", precision)


def test_a_convolutional_stem_stays_in_float32(tmp_path: Path) -> None:
    """ast-tiny has one: its float16 export always failed, for half its first convolution was float32."""
    conv = save_small(tmp_path / "ast", "ast", stem="conv", width=64, stride_mels=16, stride_frames=16)
    to_onnx(conv, tmp_path / "out", "float16")
    model = onnx.load(tmp_path / "out" / "model.onnx")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    products = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in types]
    assert {types[name] for node in convolutions for name in node.input[1:]} == {onnx.TensorProto.FLOAT}
    assert [types[node.input[1]] for node in products].count(onnx.TensorProto.FLOAT16) == 8


def test_an_existing_folder_is_not_overwritten(small_ast: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="exists already"):
        to_onnx(small_ast, tmp_path)


@pytest.mark.parametrize("folder", [True, False])
def test_who_comes_second_is_told_that_the_folder_exists(small_ast: Checkpoint, tmp_path: Path, folder: bool) -> None:
    """The loser of two exports to one folder was told that a hidden folder was not empty."""
    out = tmp_path / "out"

    def meanwhile(*_: object) -> dict[str, Any]:
        other = out / "export.json" if folder else out
        other.parent.mkdir(exist_ok=True)
        other.write_text("another's")
        return {}

    def same(log_mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            embeddings = small_ast.network.embed(torch.from_numpy(log_mel))
            return small_ast.network.head(embeddings).numpy(), embeddings.numpy()

    with pytest.raises(ExportError, match="exists already"):
        export_folder.make_export(small_ast, out, "onnx", "float32", meanwhile, lambda _: same)
    assert list(tmp_path.iterdir()) == [out]


def test_a_drifting_export_is_refused_and_leaves_nothing(small_ast: Checkpoint, tmp_path: Path) -> None:
    def drifting(log_mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            embeddings = small_ast.network.embed(torch.from_numpy(log_mel))
            return (small_ast.network.head(embeddings) + 0.01).numpy(), embeddings.numpy()

    with pytest.raises(ParityError, match="differ"):
        export_folder.make_export(small_ast, tmp_path / "out", "onnx", "float32", lambda *_: {}, lambda _: drifting)
    assert list(tmp_path.iterdir()) == []
