"""Supervised training of any backbone from one recipe; a killed run goes on exactly where its last state was saved."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from itertools import islice
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
from model.training.waveforms import read_readable
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
        rows, scores = self.logits(network)
        if not rows:
            return {}
        truth = self.validation.targets[rows].numpy()
        clips = [self.validation.clips[row] for row in rows]
        measured = {
            "map": mean_average_precision(scores, truth),
            "esc50_top1": esc50_top1(scores, clips, list(self.validation.labels.mids)),
        }
        if self.recipe.best_by == "accuracy":
            measured["accuracy"] = accuracy(scores, truth)
        return {name: round(value, 4) for name, value in measured.items() if not math.isnan(value)}

    def logits(self, network: nn.Module) -> tuple[list[int], np.ndarray]:
        """Which of the validation clips can be read, and their logits (rows, C)."""
        samples = round(self.recipe.window_seconds * self.features.config.sample_rate)
        readable = read_readable(self.validation.waveforms, self.recipe.workers)
        rows: list[int] = []
        parts = [np.zeros((0, len(self.validation.labels)), np.float32)]
        while batch := list(islice(readable, CLIPS_AT_ONCE)):
            rows += [row for row, _ in batch]
            parts.append(clip_logits(network, self.features, [waveform for _, waveform in batch], samples))
        return rows, np.concatenate(parts)


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
        teachers=dict(zip(recipe.teachers, teachers.weights_sha256, strict=True)) if teachers else {},
    )


def _teach(
    teachers: Teachers, autocast: Callable[[], AbstractContextManager[None]], batch: Batch, _: Generator
) -> Batch:
    with autocast():
        return batch._replace(taught=teachers.teach(batch))
