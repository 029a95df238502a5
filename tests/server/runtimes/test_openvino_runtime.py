"""What OpenVINO is told, and what is said where it cannot serve."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
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
    assert options["ENABLE_CPU_PINNING"] is False
    assert options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == "64"


def test_a_batch_gives_each_window_its_own_answer(small_ast: Checkpoint, export_of: Callable[[str, str], Path]) -> None:
    """The export is for one window; a batch's answers once shared the memory of the last one's."""
    runtime = OpenVinoRuntime(read_export(export_of("openvino", "int8")), small_ast.features, "cpu")
    samples = small_ast.config.window_samples
    waveforms = np.random.default_rng(0).uniform(-0.5, 0.5, (3, samples)).astype(np.float32)
    waveforms[1] *= 0.01
    lengths = np.full(3, samples, np.int64)
    together = runtime.run(waveforms, lengths)
    assert together.logits.shape == (3, len(small_ast.labels))
    assert runtime._compiled.get_property("TBB_PARTITIONER").name == "AUTO"
    for row in range(3):
        alone = runtime.run(waveforms[row : row + 1], lengths[:1])
        np.testing.assert_allclose(together.logits[row], alone.logits[0], atol=1e-5)
        np.testing.assert_allclose(together.embeddings[row], alone.embeddings[0], atol=1e-5)
    assert np.abs(together.logits[0] - together.logits[1]).max() > 1e-3


def test_a_missing_package_and_a_broken_model_are_one_sentence(
    small_ast: Checkpoint,
    export_of: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export = read_export(export_of("openvino", "int8"))
    (tmp_path / "model.xml").write_text("no network")
    with pytest.raises(BrokenExportError, match="cannot read"):
        OpenVinoRuntime(replace(export, folder=tmp_path), small_ast.features, "cpu")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(RuntimeUnavailableError, match="cpu extra"):
        OpenVinoRuntime(export, small_ast.features, "cpu")
