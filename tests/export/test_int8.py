"""Eight-bit weights are the nearest, whatever the column holds."""

import numpy as np

from export.int8 import quantise_columns


def test_every_weight_is_off_by_half_a_step_at_most() -> None:
    weights = np.random.default_rng(0).normal(0, 1, (64, 8)).astype(np.float32) * np.logspace(-4, 3, 8)
    quantised, scales = quantise_columns(weights)
    assert quantised.dtype == np.int8
    assert quantised.min() >= -127
    assert np.all(np.abs(quantised * scales - weights) <= scales / 2 * 1.001)
    assert np.all(np.abs(quantised).max(axis=0) == 127)


def test_a_column_of_zeros_stays_zero() -> None:
    quantised, scales = quantise_columns(np.zeros((4, 2), np.float32))
    assert not quantised.any()
    assert np.isfinite(scales).all()
