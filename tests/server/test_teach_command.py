"""`hark teach`: a folder of clips becomes a label that `hark classify` knows."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from server import cli

RATE = 16_000


@pytest.fixture
def beeps(tmp_path: Path) -> Path:
    """Four second-long chords that no everyday sound has."""
    folder = tmp_path / "beeps"
    folder.mkdir()
    seconds = np.arange(RATE) / RATE
    for place in range(4):
        chord = sum(np.sin(2 * np.pi * (frequency + 5 * place) * seconds) for frequency in (1000, 1900, 3100))
        soundfile.write(folder / f"{place}.wav", 0.2 * chord, RATE)
    (folder / ".hidden").write_text("passed over")
    return folder


@pytest.mark.checkpoint
def test_a_taught_label_is_known_to_classify(
    beeps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HARK_CLASSES_FOLDER", str(tmp_path / "classes"))
    assert cli.run(["teach", "robot beep", str(beeps)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("'robot beep' is told apart")
    assert "version 1 of 'robot beep' for aum-tiny" in printed.err
    assert cli.run(["classify", str(beeps / "0.wav"), "--format", "json"]) == 0
    found = {label["mid"]: label for label in json.loads(capsys.readouterr().out)["labels"]}
    assert found["/own/robot beep"]["label"] == "robot beep"
    assert found["/own/robot beep"]["score"] > 0.5
    assert cli.run(["teach", "robot beep", str(beeps), "--negatives", str(beeps)]) == 0
    assert "cannot be told apart from the negatives you gave" in capsys.readouterr().out


@pytest.mark.checkpoint
@pytest.mark.parametrize(
    ("name", "spoil", "part"),
    [
        ("Dog", None, "has a label 'Dog' already"),
        ("a/b", None, "letters, digits"),
        ("beep", "few", "at least 3 clips"),
        ("beep", "text", "notes.txt: "),
        ("beep", "none", "No such file"),
        ("beep", "blocked", "cannot be stored"),
    ],
)
def test_wrong_forms_are_one_sentence(
    beeps: Path, tmp_path: Path, name: str, spoil: str | None, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = tmp_path / "classes"
    if spoil == "few":
        (beeps / "0.wav").unlink()
        (beeps / "1.wav").unlink()
    elif spoil == "text":
        (beeps / "notes.txt").write_text("this is no sound")
    elif spoil == "blocked":
        classes.write_text("a file is in the way")
    folder = beeps / "nowhere" if spoil == "none" else beeps
    assert cli.run(["teach", name, str(folder), "--classes", str(classes)]) == 1
    printed = capsys.readouterr()
    assert part in printed.err
    assert printed.err.count("\n") == 1
    assert not list(tmp_path.rglob("*.safetensors"))
