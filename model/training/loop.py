"""The one training loop: batches → loss → step, on any number of devices, saved so that it goes on exactly.

epoch of a run:  step  step  step │save│ step  ✂ killed         the state holds weights, optimiser, averages, the
                                  └──────► step  step …         random numbers after the last finished step
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from model.training.averages import add_to_mean, follow
from model.training.batches import EpochRandom, Feed
from model.training.clips import ManifestError
from model.training.hardware import Fabric
from model.training.identity import Identity
from model.training.losses import Batch
from model.training.progress import Curves, Display
from model.training.recipe import RecipeError, TrainingRecipe
from model.training.run_state import Run, claim_folder, resume_run, save_run
from model.training.schedules import rate_factor


class DivergedError(ValueError):
    """The loss is no longer a number; the state saved before is sound."""


@dataclass(frozen=True)
class Task:
    """What a run trains: `objective` holds the network and turns batches into losses.

    `measure` tells how good a network is; the schedule and `keep: best` look at its value `watched`.
    """

    objective: nn.Module
    feed: Feed
    measure: Callable[[nn.Module], dict[str, float]]
    watched: str
    lower_is_better: bool = False


class Loop:
    """Trains a run to its last epoch; its state and log go to `folder`."""

    def __init__(
        self, recipe: TrainingRecipe, task: Task, run: Run, fabric: Fabric, folder: Path, identity: Identity
    ) -> None:
        self._recipe, self._task, self._run, self._fabric = recipe, task, run, fabric
        self._folder, self._identity = folder, identity
        self._scaler = getattr(fabric.strategy.precision, "scaler", None)
        self._objective: Any
        self._objective, self._optimizer = fabric.setup(task.objective, run.optimizer)
        if run.average is not None:
            run.average.to(fabric.device)

    def train(self, report: Callable[[str], None], tensorboard: bool = False) -> Run:
        """Go on from the saved state, if there is one, and train to the end.

        Raises: RecipeError if the folder holds another run, or another process trains there; DivergedError;
        ManifestError if what is watched cannot be measured; OSError if the state cannot be saved.
        """
        run, fabric = self._run, self._fabric
        main = fabric.is_global_zero
        if main:
            self._folder.mkdir(parents=True, exist_ok=True)
        fabric.barrier()
        with claim_folder(self._folder) if main else nullcontext():
            self._go_on(report, tensorboard)
        return run

    def _go_on(self, report: Callable[[str], None], tensorboard: bool) -> None:
        run, fabric, steps = self._run, self._fabric, self._task.feed.steps
        main = fabric.is_global_zero
        if resume_run(run, self._identity, self._scaler, self._folder, fabric.device) and main:
            report(f"going on after {run.step} of {steps * self._recipe.epochs} steps")
        if fabric.broadcast(run.step) != run.step:
            raise RecipeError(f"{self._folder} must be on a disk that all machines of the run share")
        curves = Curves(self._folder, run.step) if main and tensorboard else None
        with Display(report, steps * self._recipe.epochs, run.step, curves, quiet=not main) as display:
            while run.epoch < self._recipe.epochs:
                self._epoch(display)

    def _epoch(self, display: Display) -> None:
        run, feed = self._run, self._task.feed
        self._started = self._saved = time.monotonic()
        random, batches = feed.epoch(run.epoch, run.epoch_step, run.random)
        run.network.train()
        while run.epoch_step < feed.steps:
            self._step(batches)
            display.step(run.step, run.epoch, run.losses, self._rate)
            if run.epoch_step < feed.steps:
                self._between_steps(random, display)
        self._finish_epoch(display)

    def _step(self, batches: Iterator[Batch]) -> None:
        """One step of the optimiser, over all micro-batches of this process."""
        recipe, run, feed = self._recipe, self._run, self._task.feed
        self._set_rate()
        run.optimizer.zero_grad()
        losses = []
        for i in range(len(feed.mine)):
            batch = next(batches)
            with self._fabric.no_backward_sync(self._objective, enabled=i + 1 < len(feed.mine)):
                loss = self._objective(batch)["loss"]
                self._fabric.backward(loss if len(feed.mine) == 1 else loss / len(feed.mine))
            losses.append(loss.detach())
        self._fabric.strategy.precision.unscale_gradients(run.optimizer)
        norm = nn.utils.clip_grad_norm_(run.network.parameters(), recipe.gradient_norm or math.inf)
        if self._scaler is None:  # a scaler leaves such a step out by itself
            self._check_finite("length of the gradient", float(norm))
        self._optimizer.step()
        run.step += 1
        run.epoch_step += 1
        if run.average is not None:
            follow(run.average, run.network, min(recipe.ema_decay, (1 + run.step) / (10 + run.step)))
        run.losses.append(self._mean(torch.stack(losses).mean()))

    def _mean(self, loss: Tensor) -> float:
        """The mean over processes.

        Raises: DivergedError if it is no number.
        """
        value = float(cast(Tensor, self._fabric.all_reduce(loss, reduce_op="mean")))
        self._check_finite("loss", value)
        return value

    def _check_finite(self, what: str, value: float) -> None:
        """Raises: DivergedError if it is no number."""
        if not math.isfinite(value):
            raise DivergedError(
                f"the {what} became {value} in step {self._run.step}; what was saved before is kept. "
                "A lower learning rate, a longer warm-up or precision float32 may help"
            )

    def _set_rate(self) -> None:
        recipe, run = self._recipe, self._run
        self._rate = recipe.learning_rate * rate_factor(
            recipe.schedule,
            recipe.warmup_share,
            run.step,
            self._task.feed.steps,
            recipe.epochs,
            run.plateau.reductions,
        )
        for group in run.optimizer.param_groups:
            group["lr"] = self._rate * group["scale"]

    def _between_steps(self, random: EpochRandom, display: Display) -> None:
        """Measure and save in the middle of an epoch, where the recipe asks for it."""
        recipe, run = self._recipe, self._run
        measured = bool(recipe.measure_steps) and run.step % recipe.measure_steps == 0
        if measured:
            self._measure(run.average if recipe.keep == "ema" and run.average is not None else run.network)
            run.network.train()
            display.measured(run.measured, run.step)
        due = recipe.save_minutes and time.monotonic() - self._saved >= 60 * recipe.save_minutes
        if measured or due or (recipe.save_steps and run.step % recipe.save_steps == 0):
            run.random = random.state()
            self._save()

    def _finish_epoch(self, display: Display) -> None:
        """Average, measure, save and tell."""
        recipe, run = self._recipe, self._run
        run.epoch += 1
        if recipe.mean_epochs and run.epoch > recipe.epochs - recipe.mean_epochs:
            run.mean = add_to_mean(run.mean, run.network.state_dict(), run.mean_count)
            run.mean_count += 1
        run.measured = {}
        if run.epoch % recipe.measure_epochs == 0 or run.epoch == recipe.epochs:
            self._measure(self._judged())
        loss = float(torch.tensor(run.losses).mean())
        run.epoch_step, run.losses, run.random = 0, [], None
        seconds = round(run.seconds + time.monotonic() - self._started, 1)
        line = {"epoch": run.epoch, "loss": round(loss, 5), **run.measured, "seconds": seconds}
        run.history.append(line)
        self._save()
        display.epoch(line, run.step)

    def _judged(self) -> nn.Module:
        """The network whose weights the run is for, as far as they are known yet."""
        recipe, run = self._recipe, self._run
        if recipe.keep == "ema" and run.average is not None:
            return run.average
        if recipe.keep == "mean" and run.epoch == recipe.epochs:
            averaged = copy.deepcopy(run.network)
            averaged.load_state_dict(run.mean)
            return averaged
        return run.network

    def _measure(self, network: nn.Module) -> None:
        """Measure on the first process; all learn the result, and the schedule and the best state follow it."""
        recipe, run = self._recipe, self._run
        measured = self._task.measure(network.eval()) if self._fabric.is_global_zero else {}
        run.measured = self._fabric.broadcast(measured)
        value = run.measured.get(self._task.watched)
        if value is None:
            if recipe.keep == "best" or recipe.schedule.kind == "plateau":
                raise ManifestError(f"no validation clip that can be read tells {self._task.watched}, which is watched")
            return
        value = -value if self._task.lower_is_better else value
        run.plateau.look(value, recipe.schedule.patience)
        if recipe.keep == "best" and value > run.best_value:
            run.best_value = value
            run.best = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}

    def _save(self) -> None:
        """Save the state on the first process; when that is due by the clock, the others do not even notice."""
        run, now = self._run, time.monotonic()
        run.seconds += now - self._started
        self._started = now
        if self._fabric.is_global_zero:
            save_run(run, self._identity, self._scaler, self._folder)
        self._saved = time.monotonic()
