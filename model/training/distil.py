"""Teachers: trained checkpoints whose scores of a batch a student learns from, hearing the same augmented sound."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from model.checkpoint import Checkpoint, load
from model.labels import LabelSet
from model.registry import find_checkpoint
from model.training.losses import Batch, Taught
from model.training.recipe import Recipe, RecipeError


class Teachers:
    """Checkpoints of any backbone that know the student's labels, in whatever order and among whatever others."""

    def __init__(self, checkpoints: Sequence[Checkpoint], labels: LabelSet, features: object) -> None:
        self._checkpoints = checkpoints
        self._columns = [[checkpoint.labels.mids.index(mid) for mid in labels.mids] for checkpoint in checkpoints]
        self._same_front_end = [checkpoint.config.features == features for checkpoint in checkpoints]

    @property
    def weights_sha256(self) -> list[str]:
        """The checksum of each one's weights."""
        return [checkpoint.weights_sha256 for checkpoint in self._checkpoints]

    @torch.no_grad()
    def teach(self, batch: Batch) -> Taught:
        """The mean scores of a batch."""
        scores, shares = [], []
        rows = zip(self._checkpoints, self._columns, self._same_front_end, strict=True)
        for checkpoint, columns, same in rows:
            log_mel = batch.log_mel if same else hear(checkpoint, batch)
            logits = checkpoint.network(log_mel).float()[:, columns]
            scores.append(logits.sigmoid())
            shares.append(logits.softmax(1))
        return Taught(torch.stack(scores).mean(0), torch.stack(shares).mean(0))


def hear(checkpoint: Checkpoint, batch: Batch) -> Tensor:
    """The batch as a checkpoint with another front end hears it: its own log-mel, with the same part of it masked."""
    features = checkpoint.features
    log_mel = features.unnormalised(batch.waveforms, batch.lengths)
    if batch.hidden is not None:
        hidden = functional.interpolate(batch.hidden[:, None].float(), size=log_mel.shape[1:], mode="nearest")[:, 0]
        log_mel = log_mel.masked_fill(hidden > 0, 0.0)
    return features.normalise(log_mel, features.frame_counts(batch.lengths))


def load_teachers(recipe: Recipe, labels: LabelSet, features: object, device: torch.device | str) -> Teachers | None:
    """The recipe's teachers on a device; None where it has none.

    Raises: RecipeError if one is missing, lacks a label, or cannot hear the recipe's windows; CheckpointError.
    """
    if not recipe.teachers:
        return None
    checkpoints = []
    for name in recipe.teachers:
        try:
            checkpoint = load(find_checkpoint(name), device)
        except LookupError as error:
            raise RecipeError(f"teachers: {error}") from error
        _check_teacher(checkpoint, name, recipe, labels, features)
        checkpoints.append(checkpoint)
    return Teachers(checkpoints, labels, features)


def _check_teacher(checkpoint: Checkpoint, name: str, recipe: Recipe, labels: LabelSet, features: object) -> None:
    if missing := [mid for mid in labels.mids if mid not in checkpoint.labels.mids]:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise RecipeError(f"teacher {name} does not know the labels {', '.join(missing[:3])}{more}")
    if abs(checkpoint.config.window_seconds - recipe.window_seconds) > 0.05:
        raise RecipeError(
            f"teacher {name} hears windows of {checkpoint.config.window_seconds:g} s, the recipe has "
            f"{recipe.window_seconds:g} s"
        )
    if checkpoint.config.features != features and (recipe.warp_frames or recipe.spectrogram_noise):
        raise RecipeError(f"teacher {name} has another front end, so warp_frames and spectrogram_noise cannot reach it")
