"""Random inputs for the selective scan, shared by the tests of its implementations."""

import torch
from torch import Tensor

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def make_case(
    batch: int = 2,
    width: int = 6,
    states: int = 5,
    length: int = 9,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    without: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """Draw the tensors of one scan, keyed by argument name; those named in `without` are left out."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    case = {
        "u": normal(batch, width, length).to(dtype),
        "delta": (normal(batch, width, length) * 0.7 - 1).to(dtype),
        "A": -torch.exp(normal(width, states)),
        "B": normal(batch, states, length).to(dtype),
        "C": normal(batch, states, length).to(dtype),
        "D": normal(width),
        "z": normal(batch, width, length).to(dtype),
        "delta_bias": normal(width) * 0.3,
    }
    return {name: tensor for name, tensor in case.items() if name not in without}


def as_float64(case: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same values in float64, which the reference computes with."""
    return {name: tensor.detach().double() for name, tensor in case.items()}


def with_gradients(case: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors as leaves that want gradients."""
    return {name: tensor.detach().clone().requires_grad_() for name, tensor in case.items()}
