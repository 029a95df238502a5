"""`hark bench runtimes` measures, remembers and says what will serve."""

from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("arguments", "code"), [(["bench", "nothing"], 2), (["bench", "runtimes", "--model", "no-such-model"], 2)]
)
def test_bad_usage_is_said(arguments: list[str], code: int) -> None:
    assert cli.run(arguments) == code
