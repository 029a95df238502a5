"""The optimiser of a network: which parameters decay, and how fast each layer learns."""

import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from model.training.strict import FieldError

TOKENS_AND_DECAYS = ("A_log", "A_b_log", "pos_embed", "cls_token", "dist_token")
"""Matrices by shape that are no weights of a linear map: positions, tokens, and Mamba's A."""


@dataclass(frozen=True)
class OptimizerConfig:
    """Which optimiser, on what.

    `decay` says what weight decay shrinks: "weights" are matrices and kernels without tokens, positions and Mamba's A;
    "matrices" is everything of two dimensions or more (SSAM's rule); "all" is everything (Adam's L2 in AST's training).
    The learning rate of layer i of n is the recipe's times `layer_decay` ** (n - i), where the patches count as layer 0
    and the head as layer n; the head's is further multiplied by `head_factor`.
    """

    kind: Literal["adamw", "adam"] = "adamw"
    betas: tuple[float, ...] = (0.9, 0.98)
    decay: Literal["weights", "matrices", "all"] = "weights"
    layer_decay: float = 1.0
    head_factor: float = 1.0

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise FieldError(f"optimizer.betas must be two numbers from 0 to below 1, not {list(self.betas)}")
        if not 0 < self.layer_decay <= 1 or self.head_factor <= 0:
            raise FieldError("optimizer: layer_decay must be above 0 and at most 1, and head_factor above 0")


def make_optimizer(
    network: nn.Module, config: OptimizerConfig, learning_rate: float, weight_decay: float, fused: bool = True
) -> torch.optim.Optimizer:
    """AdamW or Adam over the network's trainable parameters, one group per pair of decay and learning rate.

    Each group's `scale` is what the schedule's rate is multiplied by. `fused` is faster, but takes gradients that a
    float16 scaler has scaled, and so leaves no room to clip them.
    """
    depth = _depth(network)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    decayed = [p for p in network.named_parameters() if p[1].requires_grad and _decays(*p, config.decay)]
    kept = [p for p in network.named_parameters() if p[1].requires_grad and not _decays(*p, config.decay)]
    for decay, parameters in ((weight_decay, decayed), (0.0, kept)):
        groups.setdefault((decay, 1.0), [])
        for name, parameter in parameters:
            groups.setdefault((decay, _scale(name, depth, config)), []).append(parameter)
    settings: list[dict[str, Any]] = [
        {"params": parameters, "weight_decay": decay, "scale": scale}
        for (decay, scale), parameters in groups.items()
        if parameters
    ]
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return kind(settings, lr=learning_rate, betas=(config.betas[0], config.betas[1]), fused=fused)


def _decays(name: str, parameter: nn.Parameter, rule: str) -> bool:
    if rule == "all":
        return True
    return parameter.ndim >= 2 and (rule == "matrices" or not any(part in name for part in TOKENS_AND_DECAYS))


def _scale(name: str, depth: int, config: OptimizerConfig) -> float:
    factor = config.head_factor if name.startswith("head") else 1.0
    return factor * config.layer_decay ** (depth - layer_number(name, depth))


def layer_number(name: str, depth: int) -> int:
    """The layer of a parameter by its name: 0 before the first block, then the blocks, and `depth` behind them."""
    if found := re.match(r"(?:blocks|layers)\.(\d+)\.", name):
        return int(found[1]) + 1
    early = name.startswith(("patch_embed", "pos_embed", "cls_token", "dist_token", "mask_"))
    return 0 if early else depth


def _depth(network: nn.Module) -> int:
    numbers = [layer_number(name, -1) for name, _ in network.named_parameters()]
    return max(max(numbers), 0) + 1
