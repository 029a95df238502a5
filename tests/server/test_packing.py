"""`hark pack`: what it says, and that training reads what it wrote."""

from pathlib import Path

import pytest

from model.training.corpus import read_corpus
from server import cli
from tests.model.training.corpora import broken, write_clips


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three clips, a corrupt one and a missing one."""
    clips = write_clips(tmp_path / "sounds", [("/m/09x0r",), ("/m/0bt9lr",), ("/m/09x0r",)])
    broken(tmp_path / "sounds")
    names = [*(clip.file.name for clip in clips), "broken.wav", "gone.wav"]
    path = tmp_path / "sounds" / "manifest.csv"
    path.write_text("file,mids,split_group\n" + "".join(f"{name},/m/09x0r,{name}\n" for name in names))
    return path


def test_it_packs_what_can_be_read_and_says_what_cannot(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["pack", str(manifest), str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert {line.split(":")[0].split("/")[-1] for line in lines[:2]} == {"broken.wav", "gone.wav"}
    assert lines[2:] == ["2 of 5 clips could not be read", f"packed 3 clips into {tmp_path / 'out'}"]
    assert len(read_corpus(tmp_path / "out").clips) == 3
    assert cli.run(["pack", str(manifest), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err.splitlines()[2:] == lines[2:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.csv", "out"], "nothing.csv does not exist"),
        (["manifest.csv", "."], "is not empty"),
        (["manifest.csv", "out", "--on-bad-file", "stop"], "cannot be read"),
        (["manifest.csv", "out", "--format", "json"], "is not a JSON file"),
        (["manifest.csv", "out", "--clips", "."], "a folder of clips is for audioset"),
    ],
)
def test_a_corpus_that_cannot_be_packed_is_one_sentence(
    manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(manifest.parent)
    assert cli.run(["pack", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_bad_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["pack", "a.csv"]) == 2
    assert cli.run(["pack", "a.csv", "b", "--shard-megabytes", "0"]) == 2
    assert capsys.readouterr().out == ""
