"""The commands that train: a run from the shell, and what is refused in one line before any work."""

from pathlib import Path

import pytest
import yaml

from model import checkpoint
from server import cli
from server.training_commands import RECIPES, find_recipe
from tests.model.training.tiny_runs import FBANK, SSAM, write_corpus

COMMON = {
    "name": "tiny",
    "backbone": "ssam",
    "backbone_config": SSAM,
    "features": FBANK,
    "window_seconds": 0.3,
    "epochs": 1,
    "batch": 8,
    "learning_rate": 0.01,
    "mask_mels": 4,
    "mask_frames": 4,
    "mixup_probability": 0,
    "precision": "float32",
    "machine": {"accelerator": "cpu"},
}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    folder.mkdir()
    return write_corpus(folder, 20)


def _write(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump({**COMMON, **changes}))
    return path


def test_pre_training_then_fine_tuning_from_the_shell(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = _write(tmp_path / "first.yaml", task="pretrain", name="first")
    data = ["--manifest", str(manifest), "--no-tensorboard"]
    assert cli.run(["pretrain", str(first), *data, "--out", "pretrained"]) == 0
    assert capsys.readouterr().err.endswith("wrote pretrained\n")
    second = _write(tmp_path / "second.yaml", initial="runs/first")
    assert cli.run(["finetune", str(second), *data, "--out", "tiny", "--set", "seed=3", "--set", "epochs=2"]) == 0
    assert (tmp_path / "runs" / "tiny" / "last.pt").exists()
    saved = checkpoint.load(tmp_path / "tiny")
    assert saved.labels.mids == ("/m/06mb1", "/m/0bt9lr")
    assert "starting from `first`" in saved.card
    assert "seed 3: 2 epochs" in saved.card.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "{recipe}"], "is a recipe for hark finetune"),
        (["finetune", "{recipe}", "--set", "epocs=3"], "did you mean epochs?"),
        (["finetune", "{recipe}", "--set", "epochs"], "an override is KEY=VALUE"),
        (["finetune", "{recipe}", "--precision", "float8"], "precision must be one of"),
        (["finetune", "{recipe}", "--devices", "3"], "cannot be shared by 3 processes"),
        (["finetune", "no-such-recipe"], "no-such-recipe: No such file"),
        (["finetune", "{recipe}", "--validation", "nowhere.csv"], "nowhere.csv does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(
    manifest: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = _write(tmp_path / "tiny.yaml")
    given = [argument.format(recipe=recipe) for argument in arguments]
    out, run = tmp_path / "out", tmp_path / "run"
    assert cli.run([*given, "--manifest", str(manifest), "--out", str(out), "--run", str(run)]) == 1
    printed = capsys.readouterr().err.splitlines()
    assert message in printed[-1]
    assert printed[-1].startswith("hark: ")
    assert not out.exists()
    assert not run.exists()


def test_a_folder_that_is_no_checkpoint_is_not_overwritten(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = _write(tmp_path / "tiny.yaml")
    assert cli.run(["finetune", str(recipe), "--manifest", str(manifest), "--out", str(manifest.parent)]) == 1
    assert "is no part of a checkpoint" in capsys.readouterr().err


def test_where_the_checkpoint_cannot_be_written_is_said_before_training(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It used to be found out when the run had ended."""
    recipe = str(_write(tmp_path / "tiny.yaml"))
    run, blocked = tmp_path / "run", tmp_path / "file" / "out"
    (tmp_path / "file").write_text("no folder")
    for out, message in ((run, "is the folder of the run; name another one"), (blocked, "file: File exists")):
        assert cli.run(["finetune", recipe, "--manifest", str(manifest), "--out", str(out), "--run", str(run)]) == 1
        assert message in capsys.readouterr().err
    assert not run.exists()


def test_a_folder_for_the_run_that_cannot_be_made_is_said_before_a_sound_is_decoded(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = _write(tmp_path / "tiny.yaml")
    given = ["--manifest", str(manifest), "--out", str(tmp_path / "out"), "--run", str(recipe)]
    assert cli.run(["finetune", str(recipe), *given]) == 1
    printed = capsys.readouterr().err
    assert printed.endswith("tiny.yaml: File exists\n")
    assert "clips to train on" not in printed


def test_recipes_that_come_with_hark_go_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("aum-tiny") == RECIPES / "aum-tiny.yaml"
    (tmp_path / "aum-tiny").write_text("a file of one's own goes first")
    assert find_recipe("aum-tiny") == Path("aum-tiny")
