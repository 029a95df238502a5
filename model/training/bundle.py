"""From a finished run to a checkpoint folder with its model card."""

from pathlib import Path
from typing import Any

import torch

from model import checkpoint
from model.checkpoint import CheckpointConfig
from model.features import FeatureConfig
from model.labels import LabelSet
from model.registry import build_network
from model.training.recipe import Recipe


def bundle(recipe: Recipe, run: Path, labels: LabelSet, folder: Path) -> None:
    """Save the averaged weights of the run in `run` as a float16 checkpoint; its card holds what the run measured.

    Raises: CheckpointError if the weights do not fit the recipe; OSError if the run has no state yet.
    """
    state = torch.load(run / "last.pt", weights_only=True)
    config = CheckpointConfig(
        name=recipe.name,
        backbone=recipe.backbone,
        backbone_config={**recipe.backbone_config, "classes": len(labels)},
        features=FeatureConfig(**recipe.features),
        window_seconds=recipe.window_seconds,
        hop_seconds=recipe.window_seconds,
    )
    card = model_card(recipe, config, labels, state)
    checkpoint.save(
        folder, config, state["average"], labels, checkpoint.golden_waveform(config), card, dtype=torch.float16
    )


MEASURES = {"esc50_top1": "top-1 among ESC-50's labelled classes", "map": "macro average precision over the labels"}


def model_card(recipe: Recipe, config: CheckpointConfig, labels: LabelSet, state: dict[str, Any]) -> str:
    """The card's Markdown: what the recipe says about itself, and what the run measured in its last epoch."""
    network = build_network(config.backbone, config.backbone_config)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    about = "\n\n".join(f"## {title}\n\n{text.strip()}" for title, text in recipe.about.items())
    return f"""# {recipe.name}

A network of the `{recipe.backbone}` family with {parameters:,} parameters that tags windows of
{recipe.window_seconds:g} seconds with {len(labels)} labels. Trained with the recipe `{recipe.name}`, seed
{recipe.seed}: {state["epoch"]} epochs in {state["seconds"] / 3600:.1f} hours.

## Measured on validation

{_measured(recipe, state["measured"])}

{about}

## Labels

{", ".join(labels.names)}
"""


def _measured(recipe: Recipe, measured: dict[str, float]) -> str:
    if not measured:
        return "Nothing was held out: the network was trained on all clips."
    rows = "\n".join(f"| {MEASURES[name]} | {value:.3f} |" for name, value in measured.items())
    return (
        f"Held out from training: fold {recipe.validation_fold} of the clips that have folds, a tenth of the recording "
        "groups of the others.\nThese are the averaged weights of the last epoch; nothing was selected on them. A "
        f"label without a clip there does not count.\n\n| measure | value |\n|---|---|\n{rows}"
    )
