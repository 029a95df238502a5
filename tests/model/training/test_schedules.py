"""Learning rates: the papers' steps and warm-ups, cosine, plateau."""

import math

import pytest

from model.training.schedules import Plateau, ScheduleConfig, one_cycle, rate_factor
from model.training.strict import FieldError


def _factor(
    schedule: ScheduleConfig, step: int, epoch_steps: int = 100, epochs: int = 10, reductions: int = 0
) -> float:
    return rate_factor(schedule, 0.1, step, epoch_steps, epochs, reductions)


def test_one_cycle_rises_to_the_peak_and_falls_to_zero() -> None:
    assert [one_cycle(share, 0.1) for share in (0, 0.05, 0.1, 1)] == pytest.approx([0, 0.5, 1, 0])
    assert one_cycle(0.55, 0.1) == pytest.approx(0.5)
    assert _factor(ScheduleConfig(), 50) == pytest.approx(0.5)


def test_steps_decay_after_whole_epochs() -> None:
    """AST on AudioSet: five epochs, halved after the second, third and fourth."""
    schedule = ScheduleConfig(kind="step", decay_after=(2, 3, 4), decay_factor=0.5)
    assert [_factor(schedule, 100 * epoch) for epoch in range(5)] == [1, 1, 0.5, 0.25, 0.125]
    assert _factor(schedule, 199) == 1
    every_second = ScheduleConfig(kind="step", decay_from=5, decay_every=2, decay_factor=0.5)
    assert [every_second.decays(finished) for finished in range(4, 10)] == [0, 1, 1, 2, 2, 3]


def test_ast_warms_up_in_jumps_of_fifty_steps_from_zero() -> None:
    schedule = ScheduleConfig(kind="step", decay_after=(10,), warmup_steps=1000, warmup_every=50)
    factors = [_factor(schedule, step, epoch_steps=5000) for step in (0, 49, 50, 99, 999, 1000, 1001)]
    assert factors == pytest.approx([0, 0, 0.05, 0.05, 0.95, 1, 1])


def test_cosine_after_a_warm_up_in_epochs_from_a_share_of_the_peak() -> None:
    schedule = ScheduleConfig(kind="cosine", warmup_epochs=2, warmup_from=0.01)
    assert _factor(schedule, 0) == pytest.approx(0.01)
    assert _factor(schedule, 100) == pytest.approx(0.505)
    assert _factor(schedule, 200) == 1
    assert _factor(schedule, 600) == pytest.approx(0.5)
    assert _factor(schedule, 1000) == pytest.approx(0)


def test_a_plateau_halves_when_patience_has_run_out() -> None:
    plateau = Plateau()
    counted = []
    for value in (0.1, 0.2, 0.2, 0.1, 0.2, 0.2, 0.2, 0.2, 0.3):
        plateau.look(value, patience=2)
        counted.append(plateau.reductions)
    assert counted == [0, 0, 0, 0, 1, 1, 1, 2, 2]
    assert plateau.best == 0.3
    assert _factor(ScheduleConfig(kind="plateau"), 0, reductions=2) == 0.25


def test_constant_stays() -> None:
    assert {_factor(ScheduleConfig(kind="constant"), step) for step in (0, 500, 999)} == {1.0}
    assert math.isinf(Plateau().best)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "step"}, "needs either decay_after or decay_from"),
        ({"kind": "cosine", "decay_after": (1,)}, "needs either decay_after or decay_from"),
        ({"kind": "step", "decay_after": (3, 2)}, "rising epochs"),
        ({"kind": "step", "decay_after": (3,), "decay_from": 2}, "needs either"),
        ({"kind": "step", "decay_from": 2, "decay_every": 0}, "decay_every"),
        ({"kind": "step", "decay_after": (0, 2)}, "rising epochs"),
        ({"warmup_steps": 5}, "one_cycle warms up over warmup_share"),
        ({"kind": "cosine", "warmup_steps": 5, "warmup_epochs": 1}, "not in both"),
        ({"kind": "cosine", "warmup_every": 0}, "warmup_every"),
        ({"kind": "cosine", "warmup_from": 2.0}, "warmup_from"),
        ({"kind": "plateau", "decay_factor": 0.0}, "decay_factor"),
    ],
)
def test_impossible_schedules_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(FieldError, match=message):
        ScheduleConfig(**fields)
