"""The cost model finds a line through noisy batches, and stays sensible where there is none."""

import random

import pytest

from server.cost_model import CostModel


def test_without_batches_nothing_costs_anything() -> None:
    assert CostModel().predict(100, 8) == 0.0


def test_finds_the_cost_per_batch_and_per_window() -> None:
    model, noise = CostModel(), random.Random(0)
    for _ in range(200):
        windows = noise.randint(1, 16)
        model.observe(windows, (0.010 + 0.002 * windows) * noise.uniform(0.95, 1.05))
    per_batch, per_window = model.coefficients()
    assert per_batch == pytest.approx(0.010, rel=0.2)
    assert per_window == pytest.approx(0.002, rel=0.2)
    assert model.predict(20, 8) == pytest.approx(3 * 0.010 + 20 * 0.002, rel=0.2)


def test_batches_of_one_size_cost_in_proportion() -> None:
    model = CostModel()
    for _ in range(5):
        model.observe(4, 0.4)
    assert model.predict(8, 4) == pytest.approx(0.8)


@pytest.mark.parametrize("batches", [[(1, 0.5), (8, 0.1)], [(1, 0.01), (8, 0.9)]])
def test_no_coefficient_is_ever_negative(batches: list[tuple[int, float]]) -> None:
    model = CostModel()
    for windows, seconds in batches:
        model.observe(windows, seconds)
    assert min(model.coefficients()) >= 0


def test_forgets_the_past() -> None:
    model = CostModel()
    for _ in range(100):
        model.observe(1, 1.0)
    for _ in range(100):
        model.observe(1, 0.1)
    assert model.predict(1, 1) == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize(("seconds_of_eight", "linear"), [(8.0, True), (1.5, False)])
def test_tells_whether_batching_gains(seconds_of_eight: float, linear: bool) -> None:
    model = CostModel()
    model.observe(1, 1.0)
    model.observe(8, seconds_of_eight)
    assert model.is_linear is linear
