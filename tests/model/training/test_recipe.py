"""Recipes are read whole and strictly before any work, and every committed one builds its network."""

from pathlib import Path

import pytest

from model.training.recipe import PretrainRecipe, Recipe, RecipeError, read_recipe
from tests.model.training.tiny_runs import tiny_pretraining, tiny_recipe

RECIPES = Path(__file__).parents[3] / "model" / "training" / "recipes"

TEXT = """
name: tiny
backbone: aum
backbone_config: {width: 16}
features: {kind: fbank}
window_seconds: 5
epochs: 3
batch: 8
learning_rate: 1.0e-3
"""


def _written(folder: Path, extra: str = "", base: str = TEXT) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(base + extra)
    return path


def test_fields_and_overrides_become_a_recipe(tmp_path: Path) -> None:
    overrides = ["learning_rate=1e-4", "schedule.kind=step", "schedule.decay_after=[1, 2]", "machine.devices=2"]
    recipe = read_recipe(_written(tmp_path), [*overrides, "backbone_config.width=32", "softmax_share=0.5"])
    assert isinstance(recipe, Recipe)
    assert (recipe.learning_rate, recipe.window_seconds, recipe.softmax_share) == (1e-4, 5.0, 0.5)
    assert (recipe.schedule.kind, recipe.schedule.decay_after) == ("step", (1, 2))
    assert (recipe.machine.devices, recipe.backbone_config) == (2, {"width": 32})
    assert recipe.sampling_kind == "rarity"
    assert read_recipe(_written(tmp_path, "balanced: false\n")).sampling_kind == "shuffle"


def test_a_number_with_an_exponent_needs_no_point_in_a_file_either(tmp_path: Path) -> None:
    """YAML 1.1 takes 1e-3 for text, and only --set made a number of it."""
    recipe = read_recipe(_written(tmp_path, "weight_decay: 1e-3\nschedule: {warmup_from: 5E-1}\n"))
    assert (recipe.weight_decay, recipe.schedule.warmup_from) == (0.001, 0.5)
    assert read_recipe(_written(tmp_path), ["name=nan", "weight_decay=2e-3"]).name == "nan"


def test_the_task_decides_the_kind(tmp_path: Path) -> None:
    path = _written(tmp_path, "task: pretrain\nmixup_probability: 0\n")
    recipe = read_recipe(path, ["backbone=ssam"])
    assert isinstance(recipe, PretrainRecipe)
    with pytest.raises(RecipeError, match="unknown fields: softmax_share"):
        read_recipe(path, ["backbone=ssam", "softmax_share=0.5"])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("epocs: 3", r"epocs \(did you mean epochs\?\)"),
        ("seed: many", "seed must be of type int"),
        ("seed: 100000000000000", "seed must be a number of at most 13 digits"),
        ("weight_decay: .inf", "weight_decay must be a finite number"),
        ("optimizer: {head_factor: .nan}", "optimizer.head_factor must be a finite number"),
        ("epochs: 4", "not YAML: 'epochs' is given twice"),
        ("machine: {devices: 1, devices: 2}", "not YAML: 'devices' is given twice"),
        ("micro_batch: true", "micro_batch must be of type int"),
        ("mask_count: 0", "mask_count must be above 0"),
        ("warmup_share: 1.5", "warmup_share must be from 0 to 1"),
        ("precision: float8", "precision must be one of float32, bfloat16, float16"),
        ("micro_batch: 3", "micro_batch 3 does not divide batch 8"),
        ("keep: mean", "keep: mean goes with mean_epochs"),
        ("keep: mean\nmean_epochs: 9", "from 1 to the number of epochs"),
        ("mean_epochs: 2", "keep: mean goes with mean_epochs"),
        ("ema_decay: 0.0", "keep: ema needs an ema_decay"),
        ("noise_decibels: [3, 1]", "noise_decibels must be two rising numbers"),
        ("reading: stream\nmixup_partner: corpus", "mixup_partner: corpus needs random access"),
        ("balanced: false\nsampling: rarity", "contradicts"),
        ("loss: bce\nsoftmax_share: 0.5", "softmax_share belongs to loss: blend"),
        ("loss: cross_entropy", "start_at_priors"),
        ("teachers: [a]", "teachers and a distil_share"),
        ("distil_share: 0.5", "teachers and a distil_share"),
        ("task: pretrain", "no pre-training here"),
        ("schedule: {kind: sine}", "schedule.kind must be one of"),
        ("schedule: {kind: step, decay_after: [1], gamma: 2}", "schedule.gamma"),
        ("optimizer: {betas: [0.9]}", "betas"),
        ("schedule: {kind: cosine}\nwarmup_share: 0.2", "warmup_share belongs to schedule.kind one_cycle"),
        ("machine: {devices: 0}", "devices and nodes"),
        ("about: [a]", "about must be a mapping"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe(_written(tmp_path, extra + "\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a list", "mapping"), ("{", "not YAML"), ("name: x\n", "lacks the fields backbone, backbone_config")],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_recipe(_written(tmp_path, base=text))


@pytest.mark.parametrize("override", ["epochs", "=3", "epochs.inner=3", "epochs={", "epochs=[3]"])
def test_an_override_that_is_none_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(RecipeError):
        read_recipe(_written(tmp_path), [override])


@pytest.mark.parametrize(
    "changes",
    [{"mask_ratio": 1.0}, {"mixup_probability": 0.5}, {"backbone": "aum"}, {"masked_patches": 0}, {"task": "finetune"}],
)
def test_impossible_pre_training_is_refused(changes: dict) -> None:
    with pytest.raises(RecipeError):
        tiny_pretraining(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clusters": False}, "clusters belongs to ssast, and the backbone is ssam"),
        ({"backbone": "ssast", "masked_only": True}, "masked_only belongs to ssam, and the backbone is ssast"),
    ],
)
def test_a_field_that_nothing_would_read_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        tiny_pretraining(**changes)


def test_values_out_of_range_are_refused_in_python_too() -> None:
    with pytest.raises(RecipeError, match="batch must be above 0, not 0"):
        tiny_recipe(batch=0)
