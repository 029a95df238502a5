"""Averages of a network's weights over a run: exponential while it trains, plain over its last epochs."""

import torch
from torch import Tensor, nn


def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move an exponential moving average of the weights on by one step; buffers are copied."""
    with torch.no_grad():
        for old, new in zip(average.parameters(), network.parameters(), strict=True):
            old.lerp_(new, 1 - decay)
        for kept, latest in zip(average.buffers(), network.buffers(), strict=True):  # a batch norm's own averages
            kept.copy_(latest)


def add_to_mean(mean: dict[str, Tensor], state: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The plain mean of `count` + 1 state dicts, from that of the first `count` and the next; integers are the last's.

    This is AST's weight averaging: every tensor of the states that its epochs ended with.
    """
    if not count:
        return {name: tensor.detach().clone() for name, tensor in state.items()}
    return {
        name: mean[name].lerp(tensor, 1 / (count + 1)) if tensor.is_floating_point() else tensor.clone()
        for name, tensor in state.items()
    }
