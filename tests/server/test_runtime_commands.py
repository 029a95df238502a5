"""`hark bench runtimes` measures, remembers and says what will serve."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.checkpoint import Checkpoint
from server import cli
from server.runtime_choice import SAFEST, Memory


def test_bench_runtimes_prints_and_remembers(
    small_aum: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARK_RUNTIME_FOLDER", str(tmp_path))
    monkeypatch.setenv("HARK_DEVICE", "cpu")
    assert cli.run(["bench", "runtimes", "--model", str(small_aum.folder)]) == 0
    printed = capsys.readouterr().out
    assert "aum-random" in printed
    assert "chosen" in printed
    (remembered,) = Memory(tmp_path, small_aum.weights_sha256, "cpu").read()
    assert remembered.candidate == SAFEST


def test_bench_runtimes_measures_with_the_servers_threads(
    small_aum: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it found was kept under another number of threads, where the server never looked."""
    threads = torch.get_num_threads()
    monkeypatch.setenv("HARK_RUNTIME_FOLDER", str(tmp_path))
    monkeypatch.setenv("HARK_DEVICE", "cpu")
    monkeypatch.setenv("HARK_CPU_THREADS", str(threads + 1))
    try:
        assert cli.run(["bench", "runtimes", "--model", str(small_aum.folder)]) == 0
        assert torch.get_num_threads() == threads + 1
        assert len(Memory(tmp_path, small_aum.weights_sha256, "cpu").read()) == 1
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("command", [["bench", "runtimes", "--model"], ["classify", "any.wav", "--model"]])
def test_an_export_where_a_checkpoint_belongs_is_said(
    export_of: Callable[[str, str], Path], capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """The sentence was that model.safetensors is not readable."""
    assert cli.run([*command, str(export_of("onnx", "int8"))]) == 1
    assert "name its checkpoint instead" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"), [(["bench", "nothing"], 2), (["bench", "runtimes", "--model", "no-such-model"], 2)]
)
def test_bad_usage_is_said(arguments: list[str], code: int) -> None:
    assert cli.run(arguments) == code
