"""Supervised training of any backbone from one recipe; a killed run goes on exactly where its last state was saved."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Generator, nn

from model.features import LogMel
from model.training.batches import Sounds
from model.training.distil import Teachers, load_teachers
from model.training.evaluate import clip_logits
from model.training.losses import Batch, Tagging
from model.training.metrics import accuracy, esc50_top1, mean_average_precision
from model.training.recipe import Recipe
from model.training.run_state import Run
from model.training.sounds import Place
from model.training.workbench import Plan, Workbench, run_recipe

CLIPS_AT_ONCE = 32
"""Validation clips in memory at a time, where they are not all there anyway."""


@dataclass(frozen=True)
class Measure:
    """How a tagger is judged: the recipe's measures on the validation clips, as far as these can tell."""

    recipe: Recipe
    features: LogMel
    validation: Sounds

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Macro mAP over the labels, ESC-50 top-1, and where the recipe goes by it, accuracy."""
        if not self.validation.clips:
            return {}
        scores = self.logits(network)
        truth = self.validation.targets.numpy()
        measured = {
            "map": mean_average_precision(scores, truth),
            "esc50_top1": esc50_top1(scores, self.validation.clips, list(self.validation.labels.mids)),
        }
        if self.recipe.best_by == "accuracy":
            measured["accuracy"] = accuracy(scores, truth)
        return {name: round(value, 4) for name, value in measured.items() if not math.isnan(value)}

    def logits(self, network: nn.Module) -> np.ndarray:
        """Logits (clips, C) of the validation clips."""
        samples = round(self.recipe.window_seconds * self.features.config.sample_rate)
        waveforms, parts = self.validation.waveforms, []
        for start in range(0, len(waveforms), CLIPS_AT_ONCE):
            chosen = [waveforms[i] for i in range(start, min(start + CLIPS_AT_ONCE, len(waveforms)))]
            parts.append(clip_logits(network, self.features, chosen, samples))
        return np.concatenate(parts)


def finetune(
    recipe: Recipe,
    data: Path | Place,
    folder: Path,
    report: Callable[[str], None] = print,
    tensorboard: bool = False,
) -> Run:
    """Train a tagger until the recipe's last epoch; progress and the resumable state go to `folder`.

    Raises: as `run_recipe`.
    """
    return run_recipe(recipe, data, folder, _plan, report, tensorboard)


def _plan(bench: Workbench) -> Plan:
    recipe = bench.recipe
    teachers = load_teachers(recipe, bench.labels, bench.features.config, bench.fabric.device)
    return Plan(
        objective=Tagging(bench.network, recipe),
        finish=partial(_teach, teachers, bench.fabric.autocast) if teachers else None,
        judge=partial(Measure, recipe, bench.features),
        watched=recipe.best_by,
    )


def _teach(
    teachers: Teachers, autocast: Callable[[], AbstractContextManager[None]], batch: Batch, _: Generator
) -> Batch:
    with autocast():
        return batch._replace(taught=teachers.teach(batch))
