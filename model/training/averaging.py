"""Several checkpoints of one network → one whose weights are their plain mean, as in AST's weight averaging.

Running statistics of batch norm belong to the weights that they were gathered with, and their mean fits no network.
Such networks need sounds, over which the statistics are gathered anew (as in torch.optim.swa_utils.update_bn).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from model import checkpoint
from model.checkpoint import WEIGHTS, Checkpoint, CheckpointConfig
from model.training.averages import add_to_mean
from model.training.clips import Clip
from model.training.predictions import predict

SHARED = ("backbone", "backbone_config", "features", "window_seconds", "hop_seconds", "activation")
"""What checkpoints must have in common besides their labels."""


def average_checkpoints(
    members: Sequence[Checkpoint],
    folder: Path,
    clips: Sequence[Clip] = (),
    report: Callable[[str], None] = print,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Write the mean of the members' weights to a new checkpoint folder, named after it and without thresholds.

    `clips` are read only for networks with batch norm, to gather its statistics.

    Raises: ValueError if there are fewer than two members, they are not of one network, or it has batch norm and there
    are no clips; CheckpointError and OSError as `checkpoint.save`.
    """
    check_averageable(members, bool(clips))
    checkpoint.require_replaceable(folder)
    mean: dict[str, Tensor] = {}
    for count, member in enumerate(members):
        mean = add_to_mean(mean, member.network.state_dict(), count)
    averaged = members[0].network
    averaged.load_state_dict(mean)
    if has_batch_norm(averaged):
        gather_statistics(members[0], list(clips), report, advance)
    config = replace(members[0].config, name=folder.name, thresholds={})
    checkpoint.save(
        folder,
        config,
        averaged.state_dict(),
        members[0].labels,
        members[0].golden.waveform,
        _card(config, members),
        dtype=stored_dtype(members[0].folder),
    )


def check_averageable(members: Sequence[Checkpoint], with_clips: bool) -> None:
    """Check before any work that a mean of these weights makes sense.

    Raises: ValueError, saying why it does not.
    """
    if len(members) < 2:
        raise ValueError("a mean needs at least two checkpoints")
    first = members[0]
    for other in members[1:]:
        for name in SHARED:
            if getattr(other.config, name) != getattr(first.config, name):
                raise ValueError(f"{other.folder} and {first.folder} differ in {name}, so their weights have no mean")
        if other.labels.mids != first.labels.mids:
            raise ValueError(f"{other.folder} and {first.folder} have different labels, so their weights have no mean")
    if has_batch_norm(first.network) and not with_clips:
        raise ValueError(
            f"{first.folder} has batch norm, whose statistics must be gathered anew for averaged weights: "
            "name a manifest of training clips"
        )


def has_batch_norm(network: nn.Module) -> bool:
    """Tell whether any module keeps running statistics."""
    return any(_keeps_statistics(module) for module in network.modules())


def gather_statistics(
    averaged: Checkpoint, clips: list[Clip], report: Callable[[str], None], advance: Callable[[], None]
) -> None:
    """Gather batch norm's means and variances over the clips; every batch counts alike."""
    kept = [module for module in averaged.network.modules() if _keeps_statistics(module)]
    for module in kept:
        module.reset_running_stats()  # type: ignore[operator]
        module.momentum = None  # type: ignore[assignment]
        module.train()
    predict(averaged, clips, report=report, advance=advance)
    averaged.network.eval()


def stored_dtype(folder: Path) -> torch.dtype:
    """The number format in which a checkpoint's weights lie on disk."""
    return next(tensor.dtype for tensor in load_file(folder / WEIGHTS).values() if tensor.is_floating_point())


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats


def _card(config: CheckpointConfig, members: Sequence[Checkpoint]) -> str:
    rows = "\n".join(f"- {member.name}, weights {member.weights_sha256}" for member in members)
    return (
        f"# {config.name}\n\nThe plain mean of the weights of {len(members)} checkpoints:\n\n{rows}\n\n"
        f"The first one's card, whose licence and data hold here too:\n\n---\n\n{members[0].card.strip()}\n"
    )
