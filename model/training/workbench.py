"""What fine-tuning and pre-training share around the loop: recipe → checks → devices → network → sounds → run.

Everything that can be found wrong is found before a sound is decoded, and everything else before the first step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.checkpoint import CheckpointConfig
from model.features import FeatureConfig, LogMel
from model.labels import LabelSet
from model.registry import UnknownModelError, build_network, config_type
from model.training.batches import Feed, Finish, Share
from model.training.clips import Clip, ManifestError
from model.training.hardware import Fabric, check_share, open_fabric
from model.training.identity import identify
from model.training.initial import initialise, start_at_priors
from model.training.loop import Loop, Task
from model.training.metrics import counts_in_esc50
from model.training.optimizers import make_optimizer
from model.training.recipe import PretrainRecipe, Recipe, RecipeError, TrainingRecipe
from model.training.run_state import Run, start_run
from model.training.sampling import label_counts
from model.training.sounds import Parts, Place, Sounds, open_sounds, read_parts
from model.training.strict import build
from model.training.waveforms import FileWaveforms


@dataclass(frozen=True)
class Workbench:
    """A network on its device, and the clips it is about to learn, not opened yet."""

    recipe: Any
    fabric: Fabric
    network: nn.Module
    features: LogMel
    labels: LabelSet


@dataclass(frozen=True)
class Plan:
    """What distinguishes one kind of training: the objective, what it adds to a batch, how a network is judged.

    `judge` makes, of the validation sounds, what measures a network; `teachers` gives the checksum of each teacher's
    weights.
    """

    objective: nn.Module
    finish: Finish | None
    judge: Callable[[Sounds], Callable[[nn.Module], dict[str, float]]]
    watched: str
    lower_is_better: bool = False
    teachers: Mapping[str, str] = field(default_factory=dict)


def run_recipe(
    recipe: TrainingRecipe,
    data: Path | Place,
    folder: Path,
    make_plan: Callable[[Workbench], Plan],
    report: Callable[[str], None],
    tensorboard: bool,
) -> Run:
    """Train until the recipe's last epoch; the resumable state, the log and the curves go to `folder`.

    Raises: ManifestError, RecipeError, CheckpointError or ConversionError before any training if the parts do not fit
    together; DivergedError; OSError.
    """
    place = data if isinstance(data, Place) else Place(data)
    parts = read_parts(recipe, place)
    check_recipe(recipe, parts.labels)
    _check_watched(recipe, parts.validation)
    check_share(recipe, recipe.machine.devices * recipe.machine.nodes)
    fabric = open_fabric(recipe)
    say = report if fabric.is_global_zero else _say_nothing
    network = _make_network(recipe, parts, say).to(fabric.device)
    features = LogMel(FeatureConfig(**recipe.features)).to(fabric.device)
    bench = Workbench(recipe, fabric, network, features, parts.labels)
    plan = make_plan(bench)
    folder.mkdir(parents=True, exist_ok=True)
    sounds = open_sounds(recipe, place, parts, features.config.sample_rate, say)
    _check_watched(recipe, sounds[1].clips)
    run = _train(bench, plan, sounds, folder, say, tensorboard)
    _tell_bad_files(fabric, sounds[0], len(parts.training) + len(parts.validation))
    return run


def _train(
    bench: Workbench,
    plan: Plan,
    sounds: tuple[Sounds, Sounds],
    folder: Path,
    say: Callable[[str], None],
    tensorboard: bool,
) -> Run:
    recipe, fabric, (training, validation) = bench.recipe, bench.fabric, sounds
    fused = recipe.precision != "float16"
    optimizer = make_optimizer(bench.network, recipe.optimizer, recipe.learning_rate, recipe.weight_decay, fused)
    run = start_run(bench.network, optimizer, recipe, fabric.is_global_zero)
    share = Share(fabric.global_rank, fabric.world_size, fabric.device)
    feed = Feed(recipe, bench.features, training, share, plan.finish)
    task = Task(plan.objective, feed, plan.judge(validation), plan.watched, plan.lower_is_better)
    identity = identify(recipe, feed.size, bench.labels.mids, training.clips, validation.clips, plan.teachers)
    Loop(recipe, task, run, fabric, folder, identity).train(say, tensorboard)
    return run


def _make_network(recipe: TrainingRecipe, parts: Parts, say: Callable[[str], None]) -> nn.Module:
    """A head that comes with the weights keeps its bias; a fresh one starts at the labels' frequencies."""
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.backbone, network_config(recipe, len(parts.labels)))
    if isinstance(recipe, Recipe) and recipe.start_at_priors:
        start_at_priors(network, label_counts(parts.training, parts.labels).float() / len(parts.training))
    say(initialise(network, recipe, parts.labels))
    return network


def network_config(recipe: TrainingRecipe, classes: int) -> dict[str, Any]:
    """The backbone's config: with its head, or in pre-training with what only that needs."""
    if isinstance(recipe, PretrainRecipe):
        return {**recipe.backbone_config, "classes": 0, "pretraining": True}
    return {**recipe.backbone_config, "classes": classes}


def check_recipe(recipe: TrainingRecipe, labels: LabelSet | None = None) -> CheckpointConfig:
    """Check everything in a recipe that needs no sound: the network, the front end, and that the two fit.

    Without `labels`, the recipe's own number of classes counts. Returns the config that the checkpoint will have.

    Raises: RecipeError.
    """
    classes = len(labels) if labels is not None else getattr(recipe, "classes", 0) or 1
    try:
        # Strictly, for build_network takes values of any type, at which torch would wonder later.
        build(config_type(recipe.backbone), network_config(recipe, classes), "backbone_config")
        features = FeatureConfig(**recipe.features)
        config = CheckpointConfig(
            name=recipe.name,
            backbone=recipe.backbone,
            backbone_config=network_config(recipe, classes),
            features=features,
            window_seconds=recipe.window_seconds,
            hop_seconds=recipe.window_seconds,
            activation="softmax" if getattr(recipe, "loss", "") == "cross_entropy" else "sigmoid",
        )
        with torch.device("meta"):
            network = build_network(config.backbone, config.backbone_config)
    except (ValueError, TypeError, ArithmeticError, RuntimeError, UnknownModelError) as error:
        raise RecipeError(f"{recipe.name}: {error}") from error
    _check_fit(recipe, features, network)
    if labels is not None and getattr(recipe, "classes", 0) not in (0, len(labels)):
        raise RecipeError(f"the recipe is for {recipe.classes} classes, the data has {len(labels)} labels")  # type: ignore[attr-defined]
    return config


def _check_fit(recipe: TrainingRecipe, features: FeatureConfig, network: nn.Module) -> None:
    shape: Any = network.config
    mels, frames = shape.mels, shape.frames
    if mels != features.mels:
        raise RecipeError(f"the network sees {mels} mels, the front end gives {features.mels}")
    cuts = recipe.backbone == "ssam" or isinstance(recipe, PretrainRecipe)
    if frames > features.frames or (frames < features.frames and not cuts):
        raise RecipeError(f"the network sees {frames} frames, the front end gives {features.frames}")
    if recipe.mask_mels > mels or recipe.mask_frames > features.frames:
        raise RecipeError(f"mask_mels and mask_frames must fit into {mels} mels and {features.frames} frames")


def _check_watched(recipe: TrainingRecipe, validation: list[Clip]) -> None:
    if recipe.keep != "best" and recipe.schedule.kind != "plateau":
        return
    if not validation:
        raise ManifestError("keep: best and schedule plateau watch validation clips, and nothing is held out")
    counts = {"map": lambda clip: bool(clip.mids), "esc50_top1": counts_in_esc50}
    best_by = getattr(recipe, "best_by", "")
    if best_by in counts and not any(map(counts[best_by], validation)):
        raise ManifestError(f"keep: best and schedule plateau watch best_by: {best_by}, which no validation clip tells")


def _tell_bad_files(fabric: Fabric, training: Sounds, clips: int) -> None:
    """Count what turned up unreadable while training, in any process; what lay in memory was counted before."""
    if not isinstance(training.waveforms, FileWaveforms):
        return
    bad = training.waveforms.bad
    for rank in range(fabric.world_size):
        for file, reason in fabric.broadcast(bad.reasons, rank).items():
            bad.add(file, reason)
    bad.summarise(clips)


def _say_nothing(_: str) -> None:
    """Only the first process speaks."""
