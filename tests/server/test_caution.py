"""Whoever is told that there is time has it: late answers make the door more careful, for a while."""

import pytest

from server import caution
from server.caution import HALF_LIFE_SECONDS, LEAST, MOST, Caution
from tests.server.gated import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(caution, "time", clock)
    return clock


def test_answers_in_time_change_nothing(clock: Clock) -> None:
    learner = Caution()
    learner.observe(1.0, 0.5)
    learner.observe(1.0, LEAST)
    learner.observe(0.05, 3.0)  # too short a prediction to learn from
    assert learner.factor == LEAST


def test_late_answers_raise_the_factor_to_a_limit_and_are_forgotten(clock: Clock) -> None:
    learner = Caution()
    learner.observe(1.0, 2.0)
    assert learner.factor == pytest.approx(1.1 * LEAST)
    for _ in range(100):
        learner.observe(1.0, 9.0)
    assert learner.factor == pytest.approx(MOST)
    clock.now += HALF_LIFE_SECONDS
    assert learner.factor == pytest.approx((MOST + LEAST) / 2)
    clock.now += 60 * HALF_LIFE_SECONDS
    assert learner.factor == pytest.approx(LEAST)
