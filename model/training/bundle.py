"""From a finished run to a checkpoint folder with its model card."""

import json
from pathlib import Path

import torch

from model import checkpoint
from model.checkpoint import CheckpointConfig
from model.features import FeatureConfig
from model.labels import LabelSet
from model.registry import build_network
from model.training.recipe import Recipe


def bundle(recipe: Recipe, run: Path, labels: LabelSet, folder: Path) -> None:
    """Save the averaged weights of the run in `run` as a float16 checkpoint; its card holds the run's last figures.

    Raises: CheckpointError if the weights do not fit the recipe; OSError if the run has no state yet.
    """
    state = torch.load(run / "last.pt", weights_only=True)["average"]
    config = CheckpointConfig(
        name=recipe.name,
        backbone=recipe.backbone,
        backbone_config={**recipe.backbone_config, "classes": len(labels)},
        features=FeatureConfig(**recipe.features),
        window_seconds=recipe.window_seconds,
        hop_seconds=recipe.window_seconds,
    )
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    card = model_card(recipe, config, labels, lines)
    checkpoint.save(folder, config, state, labels, checkpoint.golden_waveform(config), card, dtype=torch.float16)


def model_card(recipe: Recipe, config: CheckpointConfig, labels: LabelSet, log: list[dict[str, float]]) -> str:
    """The card's Markdown: what the recipe says about itself, and what the log of the run measured."""
    sizes = build_network(config.backbone, config.backbone_config)
    parameters = sum(parameter.numel() for parameter in sizes.parameters())
    last = log[-1]
    hours = sum(line["seconds"] for line in log) / 3600
    about = "\n\n".join(f"## {title}\n\n{text.strip()}" for title, text in recipe.about.items())
    names = ", ".join(labels.names)
    return f"""# {recipe.name}

A {recipe.backbone} network with {parameters:,} parameters that tags {recipe.window_seconds:g}-second windows with
{len(labels)} AudioSet labels. Trained by this repository's own code with `model/training/recipes/{recipe.name}.yaml`,
seed {recipe.seed}.

## Measured on validation

ESC-50 fold {recipe.validation_fold} and a tenth of every other source, held out by recording group; training never saw
them. Figures of the last epoch ({last["epoch"]}) of the averaged weights; nothing was selected on them.

| measure | value |
|---|---|
| top-1 among ESC-50's 47 labelled classes | {last["esc50_top1"]:.1%} |
| macro average precision over the labels with a positive | {last["map"]:.3f} |

Training took {hours:.1f} hours.

{about}

## Labels

{names}
"""
