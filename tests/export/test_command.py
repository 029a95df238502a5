"""`hark export` says in one line what came of it."""

import sys
from pathlib import Path

import pytest

from export import command
from model.checkpoint import Checkpoint


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """As on a machine without the package."""
    for name in ("graph", "int8", "to_onnx", "to_openvino", "to_tensorrt"):
        monkeypatch.delitem(sys.modules, f"export.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)


def test_a_mamba_is_refused_before_any_package_is_missed(
    small_aum: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the cpu extra it said "No module named 'onnx'", as if installing that would help."""
    hide(monkeypatch, "onnx")
    for target in command.TARGETS:
        assert command.main([str(small_aum.folder), str(tmp_path / "out"), "--to", target]) == 1
        assert "native scan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "package", "extra"),
    [("onnx", "onnx", "cpu"), ("onnx", "onnxruntime", "cpu"), ("openvino", "openvino", "cpu")],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    small_ast: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
    package: str,
    extra: str,
) -> None:
    hide(monkeypatch, package)
    assert command.main([str(small_ast.folder), str(tmp_path / "out"), "--to", target]) == 1
    said = capsys.readouterr().err
    assert package in said
    assert f"pip install '.[{extra}]'" in said


def test_an_unknown_model_is_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["no-such-model", str(tmp_path / "out")]) == 2
    assert "no-such-model" in capsys.readouterr().err


def test_a_precision_that_the_target_lacks_is_said(
    small_ast: Checkpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(small_ast.folder), str(tmp_path / "out"), "--to", "openvino", "--precision", "float16"]
    assert command.main(arguments) == 1
    assert "float32, bfloat16, int8" in capsys.readouterr().err
