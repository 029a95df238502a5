"""What OpenVINO is told, and what is said where it cannot serve."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model.checkpoint import Checkpoint
from server.runtimes import openvino_runtime
from server.runtimes.exported import Export, read_export
from server.runtimes.openvino_runtime import OpenVinoRuntime, compile_options
from server.serving_errors import BrokenExportError, RuntimeUnavailableError


@pytest.mark.parametrize(
    ("precision", "native", "hint"),
    [("float32", "bfloat16", "f32"), ("int8", "bfloat16", "bf16"), ("int8", "float32", "f32")],
)
def test_bfloat16_is_used_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, precision: str, native: str, hint: str
) -> None:
    monkeypatch.setattr(openvino_runtime, "best_cpu_precision", lambda: native)
    export = Export(Path(), "openvino", precision, "", {"compile": {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "64"}})
    options = compile_options(export, threads=3)
    assert options["INFERENCE_PRECISION_HINT"] == hint
    assert options["INFERENCE_NUM_THREADS"] == 3
    assert options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == "64"


def test_a_missing_package_or_file_is_one_sentence(
    small_ast: Checkpoint,
    export_of: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export = read_export(export_of("openvino", "int8"))
    shutil.copy(export.folder / "export.json", tmp_path)
    with pytest.raises(BrokenExportError, match="missing"):
        OpenVinoRuntime(read_export(tmp_path), small_ast.features, "cpu")
    (tmp_path / "model.xml").write_text("no network")
    with pytest.raises(BrokenExportError, match="cannot read"):
        OpenVinoRuntime(read_export(tmp_path), small_ast.features, "cpu")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeUnavailableError, match="cpu extra"):
        OpenVinoRuntime(export, small_ast.features, "cpu")
