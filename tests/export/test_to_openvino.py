"""AST to OpenVINO: the same answers after reload, in every precision."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch

from export import command
from export.to_openvino import compile_options, open_openvino
from model.checkpoint import Checkpoint

ExportOf = Callable[[str, str], Path]


@pytest.mark.parametrize(("precision", "atol"), [("bfloat16", 5e-2), ("int8", 5e-2)])
def test_any_batch_gives_the_checkpoints_logits_and_embeddings(
    small_ast: Checkpoint, export_of: ExportOf, precision: str, atol: float
) -> None:
    log_mel = torch.randn(3, 64, 32, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        embeddings = small_ast.network.embed(log_mel)
        logits = small_ast.network.head(embeddings)
    run = open_openvino(export_of("openvino", precision), precision, compile_options(small_ast, precision))
    for rows in (slice(0, 1), slice(None)):
        exported_logits, exported_embeddings = run(log_mel[rows].numpy())
        np.testing.assert_allclose(exported_logits, logits[rows], atol=atol)
        np.testing.assert_allclose(exported_embeddings, embeddings[rows], atol=4 * atol)


def test_a_full_disk_is_said(
    small_ast: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was a traceback that ended in "basic_ios::clear"."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(openvino, "save_model", fail)
    assert command.main([str(small_ast.folder), str(tmp_path / "out"), "--to", "openvino"]) == 1
    assert "the disk may be full" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_eight_bits_are_a_quarter_and_the_folder_says_how_to_compile(
    small_ast: Checkpoint, export_of: ExportOf
) -> None:
    folder = export_of("openvino", "int8")
    about = json.loads((folder / "export.json").read_text())
    assert about["compile"] == {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}
    xml = (folder / "model.xml").read_text()
    assert xml.count('element_type="i8"') >= 10  # six in the first of two blocks; the last makes no keys and values
    assert openvino.Core().read_model(folder / "model.xml").input(0).shape[0] == 1  # one window
    assert not (folder / "graph.onnx").exists()
