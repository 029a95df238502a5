"""A run goes on only with what it began with: recipe, classes, clips, their labels, and its teachers' weights."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from model.training.clips import Clip
from model.training.finetune import finetune
from model.training.identity import Identity, check_same, checksum_labels, identify, recipe_and_mids
from model.training.pretrain import pretrain
from model.training.recipe import Machine, PretrainRecipe, Recipe, RecipeError
from tests.model.training.tiny_runs import quiet, save_teacher, tiny_pretraining, tiny_recipe, write_corpus

FOLDER = Path("runs/tiny")
TEACHERS = {"first": "aa", "second": "bb"}


def _clips(*names: str) -> list[Clip]:
    return [Clip(Path("sounds") / name, ("/m/0bt9lr",), name, None, "dog") for name in names]


def _identify(recipe: Recipe | PretrainRecipe | None = None, **changes: object) -> Identity:
    parts = {"micro_batch": 8, "mids": ["a"], "training": _clips("1.wav"), "validation": _clips("2.wav")}
    return identify(recipe or tiny_recipe(), **{**parts, "teachers": TEACHERS, **changes})  # type: ignore[arg-type]


def _state(identity: Identity) -> dict[str, object]:
    return {"identity": identity.text, "checksums": dict(identity.checksums)}


def test_the_text_stays_what_older_states_hold() -> None:
    """A change of its form would strand every run that is under way."""
    recipe, mids, clips = json.loads(_identify(training=_clips("1.wav", "2.wav")).text)
    unbinding = ("about", "machine", "save_steps", "save_minutes", "reading", "workers")
    expected = {name: value for name, value in asdict(tiny_recipe()).items() if name not in unbinding}
    assert recipe == json.loads(json.dumps({**expected, "micro_batch": 8}))
    assert mids == ["a"]
    assert clips == hashlib.sha256(b"1.wav\n2.wav").hexdigest()
    assert recipe_and_mids(_identify().text) == (recipe, ("a",))


def test_what_changes_no_number_may_change_between_stops() -> None:
    recipe = tiny_recipe()
    first = _identify(recipe)
    assert _identify(replace(recipe, save_steps=5, workers=3, about={"a": "b"})) == first
    moved = [replace(clip, file=Path("elsewhere") / clip.file.name, split_group="x") for clip in _clips("1.wav")]
    assert _identify(training=moved) == first
    others = [_identify(replace(recipe, seed=5)), _identify(micro_batch=4), _identify(mids=["b"])]
    others.append(_identify(training=_clips("3.wav")))
    assert all(other.text != first.text for other in others)


def test_the_order_of_a_stream_binds_what_it_follows_from() -> None:
    """It follows from the workers and the processes, so a run that went on with others repeated or missed clips."""
    recipe = tiny_recipe(reading="stream")
    first = _identify(recipe).text
    assert _identify(replace(recipe, save_steps=5)).text == first
    others = [replace(recipe, workers=3), replace(recipe, reading="files"), replace(recipe, machine=Machine(devices=2))]
    assert all(_identify(other).text != first for other in others)


def test_a_name_that_is_not_utf_8_has_a_checksum_too() -> None:
    clips = _clips(b"caf\xe9.wav".decode(errors="surrogateescape"))
    assert _identify(training=clips, validation=clips).text != _identify().text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mids": ["b"]}, "holds a run of another recipe, other labels or other clips"),
        ({"training": [replace(_clips("1.wav")[0], mids=("/m/06mb1",))]}, "labels of the clips to train on"),
        ({"validation": [replace(_clips("2.wav")[0], category="cat")]}, "clips to validate on, or their labels,"),
        ({"validation": []}, "clips to validate on, or their labels,"),
        ({"teachers": {**TEACHERS, "second": "cc"}}, "weights of teacher second"),
    ],
)
def test_each_change_has_its_sentence(changes: dict[str, object], message: str) -> None:
    check_same(_state(_identify()), _identify(), FOLDER)
    with pytest.raises(RecipeError, match=f"{message}.*{FOLDER}|{FOLDER} {message}.*name another folder"):
        check_same(_state(_identify()), _identify(**changes), FOLDER)


def test_states_without_checksums_go_by_their_text() -> None:
    relabelled = _identify(training=[replace(_clips("1.wav")[0], mids=("/m/06mb1",))], teachers={"first": "cc"})
    check_same({"identity": _identify().text}, relabelled, FOLDER)
    with pytest.raises(RecipeError, match="another recipe"):
        check_same({"identity": _identify().text}, _identify(mids=["b"]), FOLDER)


def test_pre_training_is_bound_by_labels_only_where_it_draws_by_them() -> None:
    drawn, shuffled = _identify(tiny_pretraining()), _identify(tiny_pretraining(balanced=False))
    assert set(drawn.checksums) - set(shuffled.checksums) == {"training"}
    assert "validation" not in drawn.checksums


def test_labels_are_told_apart_clip_by_clip() -> None:
    first, second = _clips("1.wav", "2.wav")
    swapped = [replace(first, mids=("x",)), replace(second, mids=("y",))], [replace(first, mids=("y",)), second]
    assert len({checksum_labels(clips) for clips in ([first, second], *swapped)}) == 3


def _relabel(manifest: Path, number: int) -> None:
    """Call one noise a dog."""
    lines = manifest.read_text().splitlines()
    lines[number + 1] = lines[number + 1].replace("rain,/m/06mb1", "dog,/m/0bt9lr")
    manifest.write_text("\n".join(lines) + "\n")


def test_a_run_whose_labels_were_edited_does_not_go_on(tmp_path: Path) -> None:
    """It went on as if nothing had happened, half of it with other labels."""
    manifest = write_corpus(tmp_path)
    before = manifest.read_text()
    finetune(tiny_recipe(1), manifest, tmp_path / "run", quiet)
    for number, message in ((2, "labels of the clips to train on have changed"), (0, "clips to validate on")):
        manifest.write_text(before)
        _relabel(manifest, number)
        with pytest.raises(RecipeError, match=message):
            finetune(tiny_recipe(1), manifest, tmp_path / "run", quiet)
    manifest.write_text(before)
    assert finetune(tiny_recipe(1), manifest, tmp_path / "run", quiet).step == 4


def test_a_pre_training_goes_on_whatever_the_clips_are_called(tmp_path: Path) -> None:
    manifest = write_corpus(tmp_path)
    recipe = tiny_pretraining(1, balanced=False)
    pretrain(recipe, manifest, tmp_path / "run", quiet)
    _relabel(manifest, 2)
    assert pretrain(recipe, manifest, tmp_path / "run", quiet).step == 5


def test_a_run_whose_teacher_was_trained_anew_does_not_go_on(tmp_path: Path) -> None:
    manifest, teacher = write_corpus(tmp_path), tmp_path / "teacher"
    recipe = tiny_recipe(1, distil_share=0.5, teachers=(str(teacher),))
    weights = save_teacher(teacher, seed=0).weights_sha256
    finetune(recipe, manifest, tmp_path / "run", quiet)
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state["checksums"][f"teacher {teacher}"] == weights
    save_teacher(teacher, seed=1)
    with pytest.raises(RecipeError, match=f"weights of teacher {teacher} have changed"):
        finetune(recipe, manifest, tmp_path / "run", quiet)
