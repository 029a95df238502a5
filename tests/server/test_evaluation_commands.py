"""`hark evaluate`, `hark fit-thresholds` and `hark average`: what they write, and exit codes 0, 1 and 2."""

import json
import os
from pathlib import Path

import pytest

from model import checkpoint
from server import cli, console, evaluation_commands
from tests.model.training.judged import DOG, RAIN, SPEECH, save_checkpoint, save_corpus


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return save_corpus(tmp_path / "clips", seconds=0.4)


def run(*arguments: object) -> int:
    return cli.run([str(argument) for argument in arguments])


def test_a_table_of_measures_goes_to_stdout(tiny: Path, manifest: Path, capsys: pytest.CaptureFixture[str]):
    assert run("evaluate", tiny, manifest) == 0
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines() if line.strip()]
    assert lines[0] == ["measure", "tiny"]
    assert ["clips", "12"] in lines
    assert any(line[-2:-1] == ["(mAP)"] for line in lines)
    assert printed.err == "tiny: 1 labels have no clip here and count in no mean\n"


def test_json_holds_every_checkpoint_and_the_ensemble(
    tiny: Path, other: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
):
    assert run("evaluate", tiny, other, manifest, "--ensemble", "--fold", 4, "--format", "json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in answer] == ["tiny", "other", "ensemble"]
    assert {each["clips"] for each in answer} == {4}
    assert {len(each["labels"]) for each in answer} == {3}


def test_reports_are_one_per_checkpoint_or_one_of_the_ensemble(
    tiny: Path, other: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run("evaluate", tiny, manifest, "--out", tmp_path / "one", "--per-label") == 0
    assert "AUC" in capsys.readouterr().out
    assert (tmp_path / "one" / "report.html").is_file()
    assert run("evaluate", tiny, other, tiny, manifest, "--out", tmp_path / "each") == 0
    assert sorted(path.name for path in (tmp_path / "each").iterdir()) == ["other-2", "tiny-1", "tiny-3"]
    assert run("evaluate", tiny, other, manifest, "--ensemble", "--out", tmp_path / "both") == 0
    assert "<h2>Members</h2>" in (tmp_path / "both" / "report.html").read_text()


def test_unreadable_clips_are_counted_or_with_strict_fatal(
    tiny: Path, manifest: Path, capsys: pytest.CaptureFixture[str]
):
    (manifest.parent / "3.wav").write_bytes(b"no sound")
    assert run("evaluate", tiny, manifest) == 0
    assert "1 of 12 clips could not be read" in capsys.readouterr().err
    assert run("evaluate", tiny, manifest, "--strict") == 1
    assert "3.wav" in capsys.readouterr().err


def test_thresholds_are_stored_and_a_dry_run_stores_none(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = save_checkpoint(tmp_path / "tiny")
    assert run("fit-thresholds", folder, manifest, "--dry-run") == 0
    assert checkpoint.load(folder).config.thresholds == {}
    assert run("fit-thresholds", folder, manifest, "--precision", 0.6) == 0
    printed = capsys.readouterr()
    assert "measured on the other" in printed.out
    assert printed.err.endswith(f"stored 2 thresholds in {folder}\n")
    loaded = checkpoint.load(folder)
    assert DOG in loaded.config.thresholds
    assert "at a precision of 0.6 on 12 clips of manifest.csv" in loaded.card


def test_an_average_of_two_checkpoints_can_be_evaluated(
    tiny: Path, other: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run("average", tiny, other, tmp_path / "mean") == 0
    assert capsys.readouterr().err == f"wrote {tmp_path / 'mean'}\n"
    assert run("evaluate", tmp_path / "mean", manifest) == 0


def test_batch_norms_statistics_need_a_manifest(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    members = [save_checkpoint(tmp_path / f"epoch{i}", i, "cnn") for i in range(2)]
    assert run("average", *members, tmp_path / "mean") == 1
    assert "name a manifest" in capsys.readouterr().err
    assert run("average", *members, tmp_path / "mean", "--manifest", manifest) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate"],
        ["evaluate", "no-such-model", "MANIFEST"],
        ["evaluate", "TINY", "MANIFEST", "--ensemble"],
        ["evaluate", "TINY", "MANIFEST", "--split", "half"],
        ["evaluate", "TINY", "MANIFEST", "--fold", "x"],
        ["evaluate", "TINY", "MANIFEST", "--split", "testing", "--fold", "1"],
        ["evaluate", "TINY", "MANIFEST", "--format", "csv"],
        ["evaluate", "TINY", "MANIFEST", "--device", "abacus"],
        ["fit-thresholds", "TINY"],
        ["fit-thresholds", "TINY", "MANIFEST", "--precision", "0"],
        ["fit-thresholds", "TINY", "MANIFEST", "--precision", "2"],
        ["average", "TINY", "OUT"],
        ["average", "TINY", "no-such-model", "OUT"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_one_line_and_exit_code_2(
    arguments: list[str], tiny: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    places = {"TINY": tiny, "MANIFEST": manifest, "OUT": tmp_path / "out"}
    assert run(*(places.get(argument, argument) for argument in arguments)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("hark: ")
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        ("no manifest", "does not exist"),
        ("empty manifest", "lists no clips"),
        ("no such fold", "its folds are: 1, 4"),
        ("broken checkpoint", "config.json"),
        ("occupied report", "occupied"),
    ],
)
def test_a_failure_is_one_line_and_exit_code_1(
    broken: str, sentence: str, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder, extra = save_checkpoint(tmp_path / "tiny"), []
    if broken == "no manifest":
        manifest.unlink()
    elif broken == "empty manifest":
        manifest.write_text("file,mids,split_group\n")
    elif broken == "no such fold":
        extra = ["--fold", 9]
    elif broken == "broken checkpoint":
        (folder / "config.json").write_text("{}")
    else:
        (tmp_path / "occupied").write_text("a file")
        extra = ["--out", tmp_path / "occupied"]
    assert run("evaluate", folder, manifest, *extra) == 1
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_an_ensemble_of_different_labels_is_refused_before_any_clip_is_scored(
    tiny: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = save_checkpoint(tmp_path / "other", mids=(RAIN, DOG, SPEECH))
    manifest.unlink()
    assert run("evaluate", tiny, other, manifest, "--ensemble") == 1
    assert "different labels" in capsys.readouterr().err


def test_a_checkpoint_that_may_not_be_changed_is_refused_at_once(
    tiny: Path, manifest: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert run("fit-thresholds", tiny, manifest) == 1
    assert "cannot be changed" in capsys.readouterr().err
    assert run("fit-thresholds", tiny, manifest, "--dry-run") == 0


def test_names_stay_apart_where_a_number_would_make_two_alike() -> None:
    """Two epochs called `a` became a-1 and a-2 beside one that was called a-1, whose report was written over."""
    names = evaluation_commands._distinct(["one/a", "two/a", "a-1"])
    assert len(set(names)) == 3


def test_a_report_that_cannot_be_written_is_refused_before_any_clip_is_scored(
    tiny: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """A folder that was there and read-only was found out after hours of scoring."""
    manifest.unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert run("evaluate", tiny, manifest, "--out", tmp_path) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_off_a_terminal_long_work_says_a_plain_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    with console.long_progress(2, "scoring") as advance:
        advance()
        advance()
    assert capsys.readouterr().err == "scoring: 1 of 2\nscoring: 2 of 2\n"
