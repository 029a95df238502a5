"""What augmentation draws by chance, per row of a batch, from one seeded generator and on its device."""

import torch
from torch import Generator, Tensor


def uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    """Uniform float32 numbers in [low, high)."""
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def chosen_rows(rows: int, share: float, generator: Generator) -> Tensor:
    """Mark each of so many rows with probability `share`: (rows,) bool."""
    return torch.rand(rows, generator=generator, device=generator.device) < share


def mixing_shares(rows: int, probability: float, concentration: float, generator: Generator) -> tuple[Tensor, Tensor]:
    """(which rows are mixed (rows,) bool, the share of each row's own sound (rows, 1), which is 1 where it is not).

    Shares come from Beta(concentration, concentration).
    """
    gammas = torch._standard_gamma(torch.full((2, rows), concentration, device=generator.device), generator=generator)
    mixed = chosen_rows(rows, probability, generator)
    return mixed, torch.where(mixed, gammas[0] / gammas.sum(0), 1.0)[:, None]
