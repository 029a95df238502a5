"""Self-supervised training: SSAM reconstructs masked patches, SSAST also tells them apart; labels play no part."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from model.backbones.ssam_model import SSAM, draw_mask
from model.backbones.ssast_model import SSAST, draw_cluster_mask, draw_frame_mask
from model.features import LogMel
from model.training.batches import Feed, Share, Sounds
from model.training.losses import Batch, JointObjective, Reconstruction
from model.training.recipe import PretrainRecipe, RecipeError
from model.training.run_state import Run
from model.training.sounds import Place
from model.training.workbench import Plan, Workbench, run_recipe


def pretrain(
    recipe: PretrainRecipe,
    data: Path | Place,
    folder: Path,
    report: Callable[[str], None] = print,
    tensorboard: bool = False,
) -> Run:
    """Pre-train until the recipe's last epoch; progress and the resumable state go to `folder`.

    Raises: as `run_recipe`.
    """
    return run_recipe(recipe, data, folder, _plan, report, tensorboard)


def _plan(bench: Workbench) -> Plan:
    recipe, network = bench.recipe, bench.network
    check_masks(recipe, network)
    finish = partial(add_masks, recipe, bench.features, network)
    judge = partial(Measure, recipe, bench.features, finish, bench.fabric.device)
    watched, lower = ("accuracy", False) if _contrasts(recipe) else ("validation_loss", True)
    return Plan(make_objective(network, recipe), finish, judge, watched, lower)


def make_objective(network: nn.Module, recipe: PretrainRecipe) -> nn.Module:
    """The recipe's objective around a network; a head that it leaves out does not learn."""
    if isinstance(network, SSAM):
        return Reconstruction(network, recipe)
    assert isinstance(network, SSAST)
    network.cpredlayer.requires_grad_(recipe.objective != "generative")
    network.gpredlayer.requires_grad_(recipe.objective != "discriminative")
    return JointObjective(network, recipe)


def _contrasts(recipe: PretrainRecipe) -> bool:
    return recipe.backbone == "ssast" and recipe.objective != "generative"


def check_masks(recipe: PretrainRecipe, network: nn.Module) -> None:
    """Check that so many patches can be masked.

    Raises: RecipeError.
    """
    config: Any = network.config
    rows, columns = config.grid
    if recipe.backbone == "ssast" and recipe.masked_patches > rows * columns - 2:
        raise RecipeError(f"masked_patches {recipe.masked_patches} leaves too few of {rows} x {columns} patches")
    if recipe.backbone == "ssam" and int(rows * columns * (1 - recipe.mask_ratio)) < 1:
        raise RecipeError(f"mask_ratio {recipe.mask_ratio} leaves none of {rows} x {columns} patches")


def add_masks(
    recipe: PretrainRecipe, features: LogMel, network: nn.Module, batch: Batch, generator: Generator
) -> Batch:
    """Cut the log-mel to what the network sees, and draw the patches to hide."""
    config: Any = network.config
    log_mel = batch.log_mel
    if log_mel.shape[1] != config.frames:
        counts = features.frame_counts(batch.lengths).clamp(max=log_mel.shape[1])
        log_mel = crop_frames(log_mel, counts, config.frames, generator)
    rows, columns = config.grid
    masks: tuple[Tensor, ...]
    if isinstance(network, SSAM):
        masks = (draw_mask(len(log_mel), rows * columns, recipe.mask_ratio, generator),)
    else:
        masks = tuple(draw_patches(recipe, (rows, columns), len(log_mel), generator) for _ in range(2))
    return batch._replace(log_mel=log_mel, masks=tuple(mask.to(log_mel.device) for mask in masks))


def draw_patches(recipe: PretrainRecipe, grid: tuple[int, int], batch: int, generator: Generator) -> Tensor:
    """Numbers of the masked patches (B, M) for each clip of a batch."""
    chance = random.Random(int(torch.randint(2**62, (), generator=generator)))
    total = grid[0] * grid[1]
    if recipe.clusters:
        return torch.tensor([draw_cluster_mask(grid, recipe.masked_patches, chance) for _ in range(batch)])
    return torch.tensor([draw_frame_mask(total, recipe.masked_patches, chance) for _ in range(batch)])


def crop_frames(log_mel: Tensor, counts: Tensor, frames: int, generator: Generator) -> Tensor:
    """Cut `frames` frames at a random place out of each row's valid ones; a shorter row is repeated: (B, frames, F)."""
    counts = counts.clamp(min=1)
    chance = torch.rand(len(log_mel), generator=generator).to(log_mel.device)
    starts = (chance * (counts - frames).clamp(min=0)).long()
    columns = (starts[:, None] + torch.arange(frames, device=log_mel.device)) % counts[:, None]  # (B, frames)
    return log_mel.gather(1, columns[:, :, None].expand(-1, -1, log_mel.shape[2]))


@dataclass(frozen=True)
class Measure:
    """The objective on the validation clips, unaugmented and with the same masks each time."""

    recipe: PretrainRecipe
    features: LogMel
    finish: Callable[[Batch, Generator], Batch]
    device: torch.device
    validation: Sounds

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """Mean loss, and SSAST's share of patches told apart."""
        if not self.validation.clips:
            return {}
        plain = plain_sound(self.recipe, len(self.validation.clips))
        feed = Feed(plain, self.features, self.validation, Share(device=self.device), self.finish)
        objective, sums, count = make_objective(network, self.recipe), dict[str, float](), 0
        with torch.random.fork_rng(), torch.no_grad():
            for batch in feed.epoch(0)[1]:
                for name, value in objective(batch).items():
                    sums[name] = sums.get(name, 0.0) + float(value)
                count += 1
        names = {"loss": "validation_loss"}
        return {names.get(name, name): round(value / count, 5) for name, value in sums.items()}


def plain_sound(recipe: PretrainRecipe, clips: int) -> PretrainRecipe:
    """The recipe without augmentation, in batches that do not need more than `clips` clips."""
    return replace(
        recipe,
        batch=min(recipe.batch, clips),
        micro_batch=0,
        sampling="shuffle",
        reading="memory",
        random_place=False,
        roll=False,
        gain_decibels=0.0,
        low_pass_share=0.0,
        high_pass_share=0.0,
        noise_share=0.0,
        warp_frames=0,
        mask_mels=0,
        mask_frames=0,
        spectrogram_noise=False,
    )
