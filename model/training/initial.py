"""Where a network's weights start: random, another checkpoint, a run's state, or ImageNet's."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.backbones.ast_model import AST
from model.backbones.aum_model import AuM
from model.checkpoint import load
from model.convert.deit import initialise_from_deit
from model.convert.reading import read_source
from model.convert.vim import initialise_from_vim
from model.labels import LabelSet
from model.registry import UnknownModelError, backbone_module, build_network, find_checkpoint
from model.training.identity import recipe_and_mids
from model.training.recipe import RecipeError, TrainingRecipe
from model.training.run_state import STATE, kept_weights, read_state

IMAGENET = "imagenet"
"""What a recipe says where each user has a file of their own."""

FRESH = ("head.", "mask_token", "pred.", "mask_embed", "cpredlayer.", "gpredlayer.")
"""Parts that may start anew: heads for other labels, and what only pre-training has."""


@dataclass(frozen=True)
class Start:
    """Trained weights with the network and the labels that they belong to; `unfinished` says so of a run."""

    backbone: str
    backbone_config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    mids: tuple[str, ...]
    unfinished: str = ""


def initialise(network: nn.Module, recipe: TrainingRecipe, labels: LabelSet) -> str:
    """Give the network the weights that the recipe starts from; returns a sentence on what was done.

    Raises: RecipeError, ConversionError or CheckpointError if they do not fit.
    """
    if not recipe.initial:
        return "starting from random weights"
    start = find_start(recipe.initial)
    if isinstance(start, Path):
        return _from_images(network, start)
    if start.backbone != recipe.backbone:
        raise RecipeError(
            f"initial: {recipe.initial} is of the {start.backbone} family, the recipe of {recipe.backbone}"
        )
    fresh = _load_fitted(network, start, recipe, labels)
    return f"starting from {recipe.initial}{start.unfinished}" + (f"; fresh: {', '.join(fresh)}" if fresh else "")


def start_at_priors(network: nn.Module, shares: Tensor) -> None:
    """Set the head's bias so that an untrained network scores each class as often as it occurs; shares (C,)."""
    biases = [p for name, p in network.named_parameters() if name.startswith("head") and name.endswith("bias")]
    with torch.no_grad():
        biases[-1].copy_(torch.logit(shares.clamp(1e-4, 0.5)))


def find_start(name: str) -> Start | Path:
    """Trained weights: a run's folder, a checkpoint's name or folder; or the path of a file with ImageNet weights.

    Raises: RecipeError if it is none of these.
    """
    path = Path(name).expanduser()
    if (path / STATE).is_file():
        return _run_start(path)
    try:
        checkpoint = load(find_checkpoint(name))
    except UnknownModelError as error:
        if path.is_file():
            return path
        hint = "; say --set initial=FILE with the DeiT or Vision Mamba file you have" if name == IMAGENET else ""
        raise RecipeError(f"initial: {error}, nor the folder of a run, nor a file{hint}") from error
    config = checkpoint.config
    return Start(config.backbone, config.backbone_config, checkpoint.network.state_dict(), checkpoint.labels.mids)


def _run_start(folder: Path) -> Start:
    state = read_state(folder)
    recipe, mids = recipe_and_mids(state["identity"])
    config = dict(recipe["backbone_config"])
    config |= {"classes": 0, "pretraining": True} if recipe["task"] == "pretrain" else {"classes": len(mids)}
    kept = kept_weights(state, recipe["keep"])
    done = f"{state['epoch']} of its {recipe['epochs']} epochs"
    if not kept:
        raise RecipeError(f"initial: {folder} has finished {done}, and no keep: {recipe['keep']} weights yet")
    unfinished = f", which has finished {done}" if state["epoch"] < recipe["epochs"] else ""
    return Start(recipe["backbone"], config, kept, mids, unfinished)


def _from_images(network: nn.Module, path: Path) -> str:
    tensors = read_source(path).tensors
    if isinstance(network, AST):
        initialise_from_deit(network, tensors)
    elif isinstance(network, AuM):
        initialise_from_vim(network, tensors)
    else:
        raise RecipeError(f"initial: ImageNet weights ({path}) can start an ast or an aum only")
    return f"starting from the ImageNet weights in {path}"


def _load_fitted(network: nn.Module, start: Start, recipe: TrainingRecipe, labels: LabelSet) -> list[str]:
    """Load what fits of `start`; returns the parts of the network that stay fresh."""
    with torch.device("meta"):
        source = build_network(start.backbone, dict(start.backbone_config))
    try:
        fitted = fit_weights(start.backbone, dict(start.state), source.config, network.config)
    except ValueError as error:
        raise RecipeError(f"initial: {error}") from error
    if start.mids != labels.mids:
        fitted = {name: tensor for name, tensor in fitted.items() if not name.startswith("head.")}
    expected = network.state_dict()
    wrong = [name for name, tensor in fitted.items() if name not in expected or tensor.shape != expected[name].shape]
    missing = [name for name in expected if name not in fitted and not name.startswith((*FRESH, "pos_embed"))]
    if wrong or missing:
        raise RecipeError(
            f"initial: {recipe.initial} does not fit the recipe's network: {', '.join([*wrong, *missing][:5])}"
        )
    network.load_state_dict(fitted, strict=False)
    return sorted({name.split(".")[0] for name in expected if name not in fitted})


def fit_weights(backbone: str, state: dict[str, Tensor], source: Any, target: Any) -> dict[str, Tensor]:
    """A state dict made for the config `source` as far as a network of the config `target` can use it.

    Raises: ValueError if the two differ in size.
    """
    module = backbone_module(backbone)
    if hasattr(module, "fit_state"):
        return module.fit_state(state, source, target)
    return module.resize_state(state, source, target) if hasattr(module, "resize_state") else state
