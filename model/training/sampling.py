"""Which clips an epoch sees and how often: a shuffle, or draws that favour the clips of rare labels."""

from typing import Literal, get_args

import torch
from torch import Generator, Tensor

from model.labels import LabelSet
from model.training.clips import Clip, ManifestError

Sampling = Literal["shuffle", "rarity", "class_balanced"]


def label_counts(clips: list[Clip], labels: LabelSet) -> Tensor:
    """How many clips carry each label: (C,) float64."""
    index = {mid: i for i, mid in enumerate(labels.mids)}
    carried = [index[mid] for clip in clips for mid in clip.mids]
    return torch.bincount(torch.tensor(carried, dtype=torch.int64), minlength=len(labels)).double()


def sampling_weights(clips: list[Clip], labels: LabelSet, sampling: Sampling) -> Tensor | None:
    """How likely each clip is to be drawn: (clips,), not summing to 1; None for "shuffle", which sees each once.

    "rarity" is one over the square root of the count of a clip's rarest label; a clip without labels counts as the
    commonest. "class_balanced" is AST's (YuanGongND/ast:src/gen_weight_file.py, BSD-3-Clause): 1000 / (count + 0.01)
    summed over a clip's labels; a clip without labels is never drawn.

    Raises: ManifestError if every weight is 0; ValueError for another name.
    """
    if sampling not in get_args(Sampling):
        raise ValueError(f"sampling must be one of {', '.join(get_args(Sampling))}, not {sampling!r}")
    if sampling == "shuffle":
        return None
    counts = label_counts(clips, labels)
    index = {mid: i for i, mid in enumerate(labels.mids)}
    if sampling == "rarity":
        rarity = (1 / counts.float().clamp(min=1).sqrt()).tolist()
        least = min(rarity, default=1.0)
        return torch.tensor([max((rarity[index[mid]] for mid in clip.mids), default=least) for clip in clips])
    shares = (1000 / (counts + 0.01)).tolist()
    weights = torch.tensor([sum(shares[index[mid]] for mid in clip.mids) for clip in clips], dtype=torch.float64)
    if not weights.any():
        raise ManifestError("no clip has a label, so there is nothing to balance")
    return weights


def draw(weights: Tensor | None, clips: int, generator: Generator) -> Tensor:
    """Clip indices of one epoch, as many as there are clips: a permutation, or with weights draws with replacement."""
    if weights is None:
        return torch.randperm(clips, generator=generator)
    return torch.multinomial(weights, clips, replacement=True, generator=generator)
