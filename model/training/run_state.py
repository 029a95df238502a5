"""What a run leaves on disk while it lasts, so that a killed one goes on exactly: one file, replaced atomically."""

import copy
import errno
import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from model.training.identity import Identity, check_same
from model.training.recipe import RecipeError, TrainingRecipe
from model.training.schedules import Plateau

STATE, LOG, LOCK = "last.pt", "log.jsonl", "run.lock"

DAMAGED = "cannot be read: it is damaged, or no state of a run; remove it to begin anew"


@dataclass
class Run:
    """Everything that changes while training, and so everything that a resumed run needs.

    `epoch` and `step` count what is finished; `epoch_step` the steps of the epoch that is not, with their `losses` and
    `random` numbers. `average` follows the network exponentially; `mean` is that of the last epochs' states, `best` the
    state that measured `best_value`. Of several processes, the `main` one writes.
    """

    network: nn.Module
    average: nn.Module | None
    optimizer: torch.optim.Optimizer
    epoch: int = 0
    step: int = 0
    epoch_step: int = 0
    seconds: float = 0.0
    measured: dict[str, float] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)
    random: list[Tensor] | None = None
    mean: dict[str, Tensor] = field(default_factory=dict)
    mean_count: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_value: float = float("-inf")
    plateau: Plateau = field(default_factory=Plateau)
    history: list[dict[str, float]] = field(default_factory=list)
    main: bool = True


PLAIN = (
    *("epoch", "step", "epoch_step", "seconds", "measured", "losses", "random"),
    *("mean", "mean_count", "best", "best_value", "history"),
)
"""Fields of a Run that are saved as they are."""


def start_run(network: nn.Module, optimizer: torch.optim.Optimizer, recipe: TrainingRecipe, main: bool = True) -> Run:
    """A run at its beginning."""
    average = copy.deepcopy(network).eval().requires_grad_(False) if recipe.ema_decay else None
    return Run(network, average, optimizer, main=main)


@contextmanager
def claim_folder(folder: Path) -> Iterator[None]:
    """Hold a run's folder for this process; the system lets go of it when the process ends, however that happens.

    The lock file lies in the folder, which may be a mounted one, and stays there: who deletes it while another process
    waits for it lets two in.

    Raises: RecipeError if another process trains there: each would write over the other's state.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RecipeError(
            f"another process trains in {folder}; stop it, or name another folder for this run"
        ) from error
    except OSError as error:  # some network disks have no locks
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    try:
        yield
    finally:
        lock.release()


def save_run(run: Run, identity: Identity, scaler: Any, folder: Path) -> None:
    """Write the state of a run, and its log; whatever happens, the state before stays until the new one is whole.

    Raises: OSError if the disk refuses.
    """
    state = {name: getattr(run, name) for name in PLAIN}
    state |= {
        "identity": identity.text,
        "checksums": dict(identity.checksums),
        "network": run.network.state_dict(),
        "average": run.average.state_dict() if run.average is not None else {},
        "optimizer": run.optimizer.state_dict(),
        "plateau": asdict(run.plateau),
        "scaler": scaler.state_dict() if scaler is not None else {},
    }
    replace_file(folder / STATE, state)
    write_log(run, folder)


def resume_run(run: Run, identity: Identity, scaler: Any, folder: Path, device: torch.device | str) -> bool:
    """Go on from a saved state; tells whether there was one.

    Raises: RecipeError if it belongs to another run (`check_same`), or cannot be read.
    """
    if not (folder / STATE).exists():
        return False
    state = read_state(folder, device)
    check_same(state, identity, folder)
    run.network.load_state_dict(state["network"])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.average is not None:
        run.average.load_state_dict(state["average"])
    if scaler is not None:
        scaler.load_state_dict(state["scaler"])
    run.plateau = Plateau(**state["plateau"])
    for name in PLAIN:
        setattr(run, name, state[name])
    run.random = [tensor.cpu() for tensor in run.random] if run.random else None
    if run.main:
        write_log(run, folder)
    return True


def read_state(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The saved state of a run.

    Raises: RecipeError if there is none that can be read, or a bit of it has changed since.
    """
    path = folder / STATE
    try:
        with ZipFile(path) as parts:  # torch itself compares no checksum
            whole = parts.testzip() is None
        state = torch.load(path, weights_only=True, map_location=device) if whole else None
    except FileNotFoundError as error:
        raise RecipeError(f"{folder} holds no state of a run") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}") from error
    except (BadZipFile, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise RecipeError(f"{path} {DAMAGED}") from error
    if not isinstance(state, dict) or "identity" not in state:
        raise RecipeError(f"{path} {DAMAGED}")
    return state


def kept_weights(state: dict[str, Any], keep: str) -> dict[str, Tensor]:
    """The weights that a finished run is for, out of its saved state."""
    return state[{"ema": "average", "last": "network", "mean": "mean", "best": "best"}[keep]]


def replace_file(path: Path, value: Any) -> None:
    """Save with torch beside `path` and put it there when it is whole and on disk.

    Raises: OSError if that cannot be done; the file that stood there stays.
    """
    temporary = path.with_suffix(".part")
    try:
        with temporary.open("wb") as file:
            torch.save(value, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write in its own words
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "the disk took only a part of it"
        kept = "the state saved before it is kept" if path.exists() else "nothing was saved before it"
        raise OSError(errno.EIO, f"the run's state could not be saved ({reason}); {kept}", str(path)) from error


def write_log(run: Run, folder: Path) -> None:
    """One line of JSON per finished epoch."""
    (folder / LOG).write_text("".join(json.dumps(line) + "\n" for line in run.history))
