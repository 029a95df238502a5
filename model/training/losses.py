"""What training makes small: each objective is a module around a network, from a batch to one loss.

As one module, a data-parallel wrapper sees a single forward pass per backward pass whatever an objective computes.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.backbones.ssam_model import SSAM, reconstruction_loss
from model.backbones.ssast_model import SSAST
from model.training.recipe import PretrainRecipe, Recipe


class Batch(NamedTuple):
    """Augmented sound: normalised log-mel (B, T, F), targets (B, C), and what teachers and objectives need beside them.

    `waveforms` (B, S) with `lengths` (B,) are what the log-mel was made of, `hidden` (B, T, F) the cells masked by
    SpecAugment; `counted` (B, C) holds 0 where a label is neither asserted nor denied. `masks` are the patches hidden
    in pre-training, one tensor per objective.
    """

    log_mel: Tensor
    wanted: Tensor
    waveforms: Tensor
    lengths: Tensor
    hidden: Tensor | None = None
    counted: Tensor | None = None
    taught: "Taught | None" = None
    masks: tuple[Tensor, ...] = ()


class Taught(NamedTuple):
    """The mean over teachers of their sigmoid and of their softmax scores, each (B, C)."""

    scores: Tensor
    shares: Tensor


class Tagging(nn.Module):
    """The supervised loss, part of it against the teachers' scores."""

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.network, self.recipe = network, recipe

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch, and its parts."""
        logits = self.network(batch.log_mel)
        with torch.autocast(logits.device.type, enabled=False):  # a reduced precision is the network's alone
            return self._compare(logits, batch)

    def _compare(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        recipe = self.recipe
        loss = supervised_loss(logits, batch.wanted, recipe.loss, recipe.softmax_share, batch.counted)
        if batch.taught is None:
            return {"loss": loss}
        learned = taught_loss(logits, batch.taught, recipe.loss, recipe.softmax_share)
        total = (1 - recipe.distil_share) * loss + recipe.distil_share * learned
        return {"loss": total, "labels": loss, "teachers": learned}


def supervised_loss(
    logits: Tensor, wanted: Tensor, kind: str, softmax_share: float, counted: Tensor | None = None
) -> Tensor:
    """The recipe's loss of logits (B, C) against targets (B, C); cells where `counted` is 0 have no binary part."""
    shares = wanted / wanted.sum(1, keepdim=True).clamp(min=1e-6)  # a clip without labels adds nothing
    return _loss(logits, wanted, shares, kind, softmax_share, counted)


def taught_loss(logits: Tensor, taught: Taught, kind: str, softmax_share: float) -> Tensor:
    """The same loss with the teachers' scores as targets."""
    return _loss(logits, taught.scores, taught.shares, kind, softmax_share, None)


def _loss(
    logits: Tensor, scores: Tensor, shares: Tensor, kind: str, softmax_share: float, counted: Tensor | None
) -> Tensor:
    """Loss "bce" against scores, averaged over the classes; "cross_entropy" against shares; or their "blend"."""
    if kind == "bce":
        return functional.binary_cross_entropy_with_logits(logits, scores, weight=counted)
    if kind == "cross_entropy":
        return -(shares * logits.log_softmax(1)).sum(1).mean()
    each = functional.binary_cross_entropy_with_logits(logits, scores, weight=counted, reduction="none").sum(1)
    if not softmax_share:
        return each.mean()
    ranking = -(shares * logits.log_softmax(1)).sum(1)
    return ((1 - softmax_share) * each + softmax_share * ranking).mean()


class Reconstruction(nn.Module):
    """SSAM's objective: the pixels of all patches, or only of the masked ones, from the patches left."""

    def __init__(self, network: SSAM, recipe: PretrainRecipe) -> None:
        super().__init__()
        self.network, self.recipe = network, recipe

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch whose `masks` hold one (B, N), true where a patch is hidden."""
        (mask,) = batch.masks
        predicted = self.network.reconstruct(batch.log_mel, mask).float()
        pixels = self.network.patch_embed.pixels(batch.log_mel)
        counted = mask if self.recipe.masked_only else None
        return {"loss": reconstruction_loss(predicted, pixels, counted, self.recipe.normalise_patches)}


class JointObjective(nn.Module):
    """SSAST's objectives, each with masks of its own: InfoNCE, plus a multiple of the mean squared error."""

    def __init__(self, network: SSAST, recipe: PretrainRecipe) -> None:
        super().__init__()
        self.network, self.recipe = network, recipe

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch whose `masks` are two (B, M) of patch numbers: to tell apart, and to reconstruct."""
        recipe, result = self.recipe, {"loss": torch.zeros((), device=batch.log_mel.device)}
        if recipe.objective != "generative":
            contrast = self.network.contrast(batch.log_mel, batch.masks[0])
            result["contrast"], result["accuracy"] = contrast.loss, contrast.accuracy
            result["loss"] = result["loss"] + contrast.loss
        if recipe.objective != "discriminative":
            result["squared_error"] = self.network.reconstruct(batch.log_mel, batch.masks[-1])
            weight = recipe.reconstruction_weight if recipe.objective == "joint" else 1.0
            result["loss"] = result["loss"] + weight * result["squared_error"]
        return result
