"""Every committed recipe reads strictly, builds its network on no memory, and says what to expect of it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from model.registry import build_network
from model.training.pretrain import check_masks
from model.training.recipe import PretrainRecipe, Recipe, TrainingRecipe, read_recipe
from model.training.workbench import check_recipe

RECIPES = sorted((Path(__file__).parents[3] / "model" / "training" / "recipes").glob("*.yaml"))

IMAGENET_HEADS = 2 * (768 * 1000 + 1000) + 2
"""What published SSAST counts include and ours do not: two unused heads, and the input's two sizes."""

PUBLISHED_PARAMETERS = {
    "ast-audioset": 86_594_063,
    "ast-audioset-balanced": 86_594_063,
    "aum-audioset": 92_107_535,
    "aum-audioset-balanced": 92_107_535,
    "aum-vggsound": 91_939_893,
    "aum-voxceleb": 92_664_291,
    "aum-speech-commands": 91_385_123,
    "aum-epic-sounds": 91_736_108,
    "ssam-audioset-pretrain": 69_443_392,
    "ssast-patch-pretrain": 88_763_346 - IMAGENET_HEADS,
    "ssast-frame-pretrain": 88_763_346 - IMAGENET_HEADS,
}

CLASSES = {"audioset": 527, "esc50": 50, "speech-commands": 35, "vggsound": 309, "voxceleb": 1251, "epic-sounds": 44}


def _network(recipe: TrainingRecipe) -> torch.nn.Module:
    config = check_recipe(recipe)
    with torch.device("meta"):
        return build_network(config.backbone, config.backbone_config)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_fits_its_network_and_says_what_to_expect(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert {"Data", "Expected result", "Cost"} <= {title.removesuffix(" and licences") for title in recipe.about}
    network = _network(recipe)
    if isinstance(recipe, PretrainRecipe):
        check_masks(recipe, network)
    if recipe.name in PUBLISHED_PARAMETERS:
        sizes = [tensor.numel() for tensor in network.state_dict().values()]
        assert sum(sizes) == PUBLISHED_PARAMETERS[recipe.name]
    for dataset, classes in CLASSES.items():
        if isinstance(recipe, Recipe) and f"-{dataset}" in recipe.name:
            assert recipe.classes == classes


def test_every_published_size_has_its_recipe() -> None:
    assert PUBLISHED_PARAMETERS.keys() <= {path.stem for path in RECIPES}


def _schedule(name: str) -> Any:
    recipe = read_recipe(next(path for path in RECIPES if path.stem == name))
    return [round(recipe.schedule.decay_factor ** recipe.schedule.decays(epoch), 4) for epoch in range(recipe.epochs)]


def test_the_papers_decays_fall_after_the_papers_epochs() -> None:
    assert _schedule("ast-audioset") == [1, 1, 0.5, 0.25, 0.125]
    assert _schedule("ast-audioset-balanced")[8:12] == [1, 1, 0.5, 0.5]
    assert _schedule("aum-vggsound")[4:10] == [1, 0.75, 0.75, 0.5625, 0.5625, 0.4219]
    assert _schedule("ast-esc50")[3:7] == [1, 1, 0.85, 0.7225]
    assert _schedule("ssast-esc50")[4:8] == [1, 1, 0.85, 0.7225]


def test_the_small_released_aum_is_two_overrides_away() -> None:
    path = next(path for path in RECIPES if path.stem == "aum-vggsound")
    network = _network(read_recipe(path, ["backbone_config.width=384", "backbone_config.variant=v2"]))
    assert sum(parameter.numel() for parameter in network.parameters()) == 25_455_285
