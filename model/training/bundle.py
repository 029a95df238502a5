"""From a finished run to a checkpoint folder with its model card."""

from pathlib import Path
from typing import Any

import torch

from model import checkpoint
from model.checkpoint import CheckpointConfig
from model.labels import LabelSet
from model.registry import build_network
from model.training.recipe import PretrainRecipe, TrainingRecipe
from model.training.run_state import kept_weights, read_state
from model.training.workbench import check_recipe


def bundle(recipe: TrainingRecipe, run: Path, labels: LabelSet, folder: Path) -> None:
    """Save the weights that the run in `run` is for as a checkpoint; its card holds what the run measured.

    A tagger is stored as float16. A pre-trained network is stored as float32, without labels, to start others.

    Raises: CheckpointError if the weights do not fit the recipe; RecipeError if the run has no state.
    """
    state = read_state(run)
    pretrained = isinstance(recipe, PretrainRecipe)
    known = LabelSet.from_mids([]) if pretrained else labels
    config = check_recipe(recipe, known)
    card = model_card(recipe, config, known, state)
    golden = checkpoint.golden_waveform(config)
    dtype = torch.float32 if pretrained else torch.float16
    checkpoint.save(folder, config, kept_weights(state, recipe.keep), known, golden, card, dtype=dtype)


MEASURES = {
    "esc50_top1": "top-1 among ESC-50's labelled classes",
    "map": "macro average precision over the labels",
    "accuracy": "accuracy",
    "validation_loss": "loss of the objective",
}

KEPT = {
    "ema": "These are the averaged weights of the last epoch; nothing was selected on them.",
    "last": "These are the weights of the last epoch; nothing was selected on them.",
    "mean": "These are the mean of the last epochs' weights; nothing was selected on them.",
    "best": "These are the weights of the epoch that measured best here, so the numbers flatter them.",
}


def model_card(recipe: TrainingRecipe, config: CheckpointConfig, labels: LabelSet, state: dict[str, Any]) -> str:
    """The card's Markdown: what the recipe says about itself, and what the run measured in its last epoch."""
    network = build_network(config.backbone, config.backbone_config)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    about = "\n\n".join(f"## {title}\n\n{text.strip()}" for title, text in recipe.about.items())
    purpose = f"tags windows of {recipe.window_seconds:g} seconds with {len(labels)} labels"
    if isinstance(recipe, PretrainRecipe):
        purpose = "was trained without labels; it tags nothing itself and starts the training of networks that do"
    return f"""# {recipe.name}

A network of the `{recipe.backbone}` family with {parameters:,} parameters that {purpose}.

Trained with the recipe `{recipe.name}`, seed {recipe.seed}: {state["epoch"]} epochs in {state["seconds"] / 3600:.1f}
hours{_origin(recipe)}.

## Measured on validation

{_measured(recipe, state["measured"])}

{about}

## Labels

{", ".join(labels.names) or "None."}
"""


def _origin(recipe: TrainingRecipe) -> str:
    start = f", starting from `{Path(recipe.initial).name}`" if recipe.initial else ""
    teachers = [Path(name).name for name in getattr(recipe, "teachers", ())]
    return start + (f", taught by {' and '.join(f'`{name}`' for name in teachers)}" if teachers else "")


def _measured(recipe: TrainingRecipe, measured: dict[str, float]) -> str:
    if not measured:
        return "Nothing was held out: the network was trained on all clips."
    rows = "\n".join(f"| {MEASURES.get(name, name)} | {value:.3f} |" for name, value in measured.items())
    return (
        f"Held out from training: {_held_out(recipe)}.\n{KEPT[recipe.keep]} "
        f"A label without a clip there does not count.\n\n| measure | value |\n|---|---|\n{rows}"
    )


def _held_out(recipe: TrainingRecipe) -> str:
    """What `sounds.read_parts` validates on, which may also be a corpus of its own with any recipe."""
    if not recipe.validation_fold:
        return "a corpus of its own"
    return (
        f"fold {recipe.validation_fold} of the clips that have folds, {recipe.validation_share:.0%} of the recording "
        "groups of the others"
    )
