"""The learning rate over a run, as a factor of the recipe's peak."""

import math
from dataclasses import dataclass
from typing import Literal

from model.training.strict import FieldError


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate moves; `kind` is the rule after warm-up.

    one_cycle   a linear rise over the recipe's `warmup_share` of the run, then half a cosine down to 0
    cosine      the same after a warm-up given in steps or epochs
    step        times `decay_factor` after each epoch of `decay_after`, or every `decay_every` epochs from `decay_from`
    plateau     times `decay_factor` when more than `patience` measurements in a row brought nothing better
    constant    the peak

    The warm-up is linear from `warmup_from` of the peak over `warmup_steps` or `warmup_epochs`; with `warmup_every` the
    rate only moves at multiples of so many steps (AST: every 50 of 1000, so that its first 50 steps are made at 0).
    """

    kind: Literal["one_cycle", "cosine", "step", "plateau", "constant"] = "one_cycle"
    warmup_steps: int = 0
    warmup_epochs: int = 0
    warmup_from: float = 0.0
    warmup_every: int = 1
    decay_after: tuple[int, ...] = ()
    decay_from: int = 0
    decay_every: int = 1
    decay_factor: float = 0.5
    patience: int = 2

    def __post_init__(self) -> None:
        if min(self.warmup_steps, self.warmup_epochs, self.patience) < 0 or self.warmup_every < 1:
            raise FieldError("schedule: warm-up and patience must not be negative, and warmup_every at least 1")
        if not 0 <= self.warmup_from <= 1 or not 0 < self.decay_factor <= 1:
            raise FieldError("schedule: warmup_from must be from 0 to 1, and decay_factor above 0 and at most 1")
        if self.warmup_steps and self.warmup_epochs:
            raise FieldError("schedule: give the warm-up in steps or in epochs, not in both")
        if self.kind == "one_cycle" and (self.warmup_steps or self.warmup_epochs):
            raise FieldError("schedule: one_cycle warms up over warmup_share; take kind cosine for steps or epochs")
        if (bool(self.decay_after) + (self.decay_from > 0)) != (self.kind == "step"):
            raise FieldError("schedule: kind step, and no other, needs either decay_after or decay_from")
        if self.decay_from < 0 or self.decay_every < 1:
            raise FieldError("schedule: decay_from must not be negative, and decay_every at least 1")
        if list(self.decay_after) != sorted(set(self.decay_after)) or (self.decay_after and self.decay_after[0] < 1):
            raise FieldError(f"schedule: decay_after must be rising epochs from 1 on, not {list(self.decay_after)}")

    def decays(self, finished: int) -> int:
        """How often kind step has decayed after so many finished epochs."""
        if self.decay_from:
            return max(0, (finished - self.decay_from) // self.decay_every + 1)
        return sum(epoch <= finished for epoch in self.decay_after)


@dataclass
class Plateau:
    """What a plateau schedule remembers between measurements; higher is better."""

    best: float = -math.inf
    waited: int = 0
    reductions: int = 0

    def look(self, value: float, patience: int) -> None:
        """Take in one measurement, and count one reduction when patience has run out."""
        if value > self.best:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > patience:
            self.waited, self.reductions = 0, self.reductions + 1


def rate_factor(
    schedule: ScheduleConfig, warmup_share: float, step: int, epoch_steps: int, epochs: int, reductions: int = 0
) -> float:
    """The factor of step `step` (from 0) in a run of `epochs` epochs; `reductions` is what a plateau has counted."""
    if schedule.kind == "one_cycle":
        return one_cycle(step / (epoch_steps * epochs), warmup_share)
    warmup = schedule.warmup_steps or schedule.warmup_epochs * epoch_steps
    if step < warmup:
        moved = step // schedule.warmup_every * schedule.warmup_every
        return schedule.warmup_from + (1 - schedule.warmup_from) * moved / warmup
    if schedule.kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(epoch_steps * epochs - warmup, 1)))
    if schedule.kind == "step":
        return schedule.decay_factor ** schedule.decays(step // epoch_steps)
    return schedule.decay_factor**reductions if schedule.kind == "plateau" else 1.0


def one_cycle(progress: float, warmup_share: float) -> float:
    """Linear rise to 1 at `warmup_share` of the run, then a cosine down to 0; progress in [0, 1]."""
    if progress < warmup_share:
        return progress / warmup_share
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup_share) / max(1 - warmup_share, 1e-9)))
