"""The fastest of those that agree is served, and what was measured is remembered for this machine alone."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from server import runtime_choice
from server.runtime_choice import SAFEST, Candidate, Measured, Memory, candidates, measure, rank
from server.serving_errors import RuntimeDriftError, RuntimeUnavailableError

INT8, BF16, ONNX = Candidate("openvino", "int8"), Candidate("openvino", "bfloat16"), Candidate("onnx", "float32")


def packages(monkeypatch: pytest.MonkeyPatch, *installed: str) -> None:
    monkeypatch.setattr(runtime_choice, "find_spec", lambda name: name if name in installed else None)


def test_a_mamba_stays_in_torch_and_float32_unless_asked() -> None:
    assert candidates("aum", "cpu", "auto", "auto") == [SAFEST]
    assert candidates("aum", "cpu", "torch", "bfloat16") == [Candidate("torch", "bfloat16"), SAFEST]
    assert candidates("ssam", "cpu", "onnx", "auto") == [ONNX, SAFEST]


def test_what_a_name_leaves_open_is_tried_and_torch_is_always_last(monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch, "openvino", "onnxruntime")
    monkeypatch.setattr(runtime_choice, "best_cpu_precision", lambda: "bfloat16")
    assert candidates("ast", "cpu", "openvino", "auto") == [INT8, SAFEST]
    assert candidates("ast", "cpu", "auto", "int8") == [INT8, Candidate("onnx", "int8"), SAFEST]
    assert candidates("ast", "cpu", "openvino", "float32") == [Candidate("openvino", "float32"), SAFEST]
    assert candidates("ast", "cpu", "torch", "auto") == [SAFEST]


def test_what_misses_a_bar_serves_only_when_its_precision_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` could take an export with 98 % same best labels, or a precision that moved a score by 0.024."""
    packages(monkeypatch, "openvino", "onnxruntime")
    monkeypatch.setattr(runtime_choice, "best_cpu_precision", lambda: "bfloat16")
    assert candidates("ast", "cpu", "auto", "auto") == [INT8, ONNX, SAFEST]
    assert candidates("ast", "cpu", "onnx", "auto") == [ONNX, SAFEST]
    assert candidates("ast", "cpu", "auto", "bfloat16") == [BF16, Candidate("torch", "bfloat16"), SAFEST]
    assert candidates("ast", "cpu", "onnx", "int8") == [Candidate("onnx", "int8"), SAFEST]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_cnn_is_asked_of_exports_in_float32_only(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """`hark export` refuses the others, and would at every start."""
    packages(monkeypatch, "openvino", "onnxruntime", "tensorrt")
    exported = {c for c in candidates("cnn", device, "auto", "auto") if c.target}
    assert exported == {ONNX}


def test_a_processor_without_bfloat16_is_not_made_to_emulate_it(monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch, "openvino", "onnxruntime")
    monkeypatch.setattr(runtime_choice, "best_cpu_precision", lambda: "float32")
    assert "bfloat16" not in {candidate.precision for candidate in candidates("ast", "cpu", "auto", "auto")}


def test_only_installed_packages_are_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    packages(monkeypatch)
    assert {candidate.runtime for candidate in candidates("ast", "cpu", "auto", "auto")} == {"torch"}
    assert {candidate.runtime for candidate in candidates("ast", "cuda", "auto", "auto")} == {"torch"}
    packages(monkeypatch, "tensorrt", "onnxruntime")
    assert {c.runtime for c in candidates("ast", "cuda", "auto", "auto")} == {
        *("tensorrt", "torch", "onnx", "onnx-tensorrt")
    }


def test_the_fastest_comes_first_and_the_refused_not_at_all() -> None:
    measured = [
        Measured("openvino", "int8", None, "drifts"),
        Measured("openvino", "bfloat16", 0.4),
        Measured("onnx", "float32", 0.3),
        Measured("torch", "float32", 0.9),
    ]
    assert rank([INT8, BF16, ONNX, SAFEST], measured) == [ONNX, BF16, SAFEST]
    assert rank([BF16, SAFEST], measured) == [BF16, SAFEST]
    assert rank([INT8, SAFEST], []) == [SAFEST]


def test_measuring_ends_with_its_time_but_measures_something(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Measured] = []
    results = measure([INT8, BF16, SAFEST], lambda _: 0.1, seconds=0, report=reported.append)
    assert [result.candidate for result in results] == [INT8]
    assert reported == results


@pytest.mark.parametrize(("error", "lasting"), [(RuntimeDriftError, True), (RuntimeUnavailableError, False)])
def test_only_a_candidate_that_drifts_is_remembered_as_refused(
    tmp_path: Path, error: type[Exception], lasting: bool
) -> None:
    def refuse(candidate: Candidate) -> float:
        if candidate == INT8:
            raise error("off by 3")
        return 0.2

    results = measure([INT8, SAFEST], refuse, seconds=60, report=lambda _: None)
    assert results[0] == Measured("openvino", "int8", None, "off by 3", lasting)
    assert results[1].seconds == 0.2
    memory = Memory(tmp_path, "a" * 64, "cpu")
    memory.write(results)
    assert memory.read() == results[0 if lasting else 1 :]


def test_memory_keeps_what_was_measured_and_adds_to_it(tmp_path: Path) -> None:
    memory = Memory(tmp_path, "a" * 64, "cpu")
    memory.write([Measured("openvino", "int8", 0.4), Measured("torch", "float32", 1.5)])
    memory.write([Measured("openvino", "int8", 0.3)])
    again = {result.candidate: result.seconds for result in Memory(tmp_path, "a" * 64, "cpu").read()}
    assert again == {INT8: 0.3, SAFEST: 1.5}


def change_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_choice, "installed_version", lambda _: "99.0")


def change_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_choice.os, "cpu_count", lambda: 777)


@pytest.mark.parametrize("change", [change_version, change_cores])
def test_another_machine_or_version_remembers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[pytest.MonkeyPatch], None]
) -> None:
    Memory(tmp_path, "a" * 64, "cpu").write([Measured("onnx", "float32", 0.1)])
    assert Memory(tmp_path, "b" * 64, "cpu").read() == []
    change(monkeypatch)
    assert Memory(tmp_path, "a" * 64, "cpu").read() == []


WRONG_TYPES = [
    {"runtime": ["x"], "precision": "int8", "seconds": 1},
    {"runtime": "onnx", "precision": "int8", "seconds": "fast"},
    {"runtime": "onnx", "precision": "int8", "seconds": float("nan")},
]


@pytest.mark.parametrize(
    "content",
    ["", "{}", '{"results": [{"runtime": 1}]}', "[]", *(json.dumps({"results": [wrong]}) for wrong in WRONG_TYPES)],
)
def test_a_broken_file_counts_as_nothing_measured(tmp_path: Path, content: str) -> None:
    """One edited by hand, with a word for the seconds, ended the start with a TypeError."""
    memory = Memory(tmp_path, "a" * 64, "cpu")
    memory.write([Measured("onnx", "float32", 0.1)])
    next((tmp_path / "measured").iterdir()).write_text(content)
    assert memory.read() == []


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    Memory(blocked, "a" * 64, "cpu").write([Measured("onnx", "float32", 0.1)])
