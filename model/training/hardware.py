"""Where a run computes, by Lightning Fabric: devices, processes, machines, precision."""

import logging
from typing import Any

import torch

from model.training.recipe import Machine, RecipeError, TrainingRecipe

try:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision, Precision
except ImportError as error:
    raise ImportError("training needs Hark's extra `train`: pip install '.[train]' in its folder") from error

__all__ = ["Fabric", "NetworkPrecision", "check_share", "open_fabric"]


class NetworkPrecision(MixedPrecision):
    """Mixed precision whose inputs stay float32: Fabric's own would round the log-mel and the targets."""

    def convert_input(self, data: Any) -> Any:
        """Leave the batch as it is."""
        return data


def _plugins(precision: str, accelerator: str) -> list[Any]:
    if precision == "float32":
        return [Precision()]
    return [NetworkPrecision("bf16-mixed" if precision == "bfloat16" else "16-mixed", accelerator)]


def open_fabric(recipe: TrainingRecipe) -> Fabric:
    """Take the recipe's devices, and start the other processes of this machine if it asks for several.

    Started by `torchrun` or Slurm, the processes are theirs.

    Raises: RecipeError if this machine has no such devices, or float16 is asked for without a GPU.
    """
    machine = recipe.machine
    accelerator = _accelerator(machine, recipe.precision)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    several = machine.devices * machine.nodes > 1
    fabric = Fabric(
        accelerator=accelerator,
        devices=machine.devices,
        num_nodes=machine.nodes,
        strategy="ddp" if several or machine.strategy == "ddp" else "auto",
        plugins=_plugins(recipe.precision, accelerator),
    )
    fabric.launch()
    return fabric


def _accelerator(machine: Machine, precision: str) -> str:
    available = torch.cuda.device_count()
    if machine.accelerator == "cuda" and machine.devices > available:
        raise RecipeError(f"machine: {machine.devices} CUDA devices are asked for, and {available} are here")
    chosen = "cuda" if machine.accelerator == "cuda" or (machine.accelerator == "auto" and available) else "cpu"
    if precision == "float16" and chosen == "cpu":
        raise RecipeError("precision float16 needs a GPU; take bfloat16 or float32 on a CPU")
    return chosen


def check_share(recipe: TrainingRecipe, processes: int) -> None:
    """Check that a batch can be shared by so many processes.

    Raises: RecipeError naming a micro_batch that would do.
    """
    size = recipe.micro_batch or recipe.batch // processes
    micros = recipe.batch // max(size, 1)
    if size < 1 or recipe.batch % size or micros % processes:
        raise RecipeError(
            f"a batch of {recipe.batch} in micro-batches of {max(size, 1)} cannot be shared by {processes} processes; "
            f"batch must be a multiple of micro_batch times the number of processes"
        )
