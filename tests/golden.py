"""Golden cases in `fixtures/`: what the official code gave for seeded random weights and inputs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

FIXTURES = Path(__file__).parent / "fixtures"

TOLERANCE = 2e-5
"""Largest difference in float32 that the fixtures' own index suggests."""


@dataclass(frozen=True)
class Golden:
    """One case: its tensors, the official state dict among them (without `module.`), and the official config."""

    tensors: dict[str, Tensor]
    state: dict[str, Tensor]
    config: dict[str, Any]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]


def load_golden(name: str) -> Golden:
    """Read a case by the name it has in fixtures.json."""
    tensors = load_file(FIXTURES / f"{name}.safetensors")
    state = {
        key.removeprefix("state.").removeprefix("module."): tensor
        for key, tensor in tensors.items()
        if key.startswith("state.")
    }
    cases = json.loads((FIXTURES / "fixtures.json").read_text())["cases"]
    return Golden(tensors, state, cases[name]["config"])


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Compare shapes and every value."""
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)
