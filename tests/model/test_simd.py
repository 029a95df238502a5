"""The sixteen-lane vector: elementary functions, bfloat16 in memory, and the code for processors without AVX-512."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from numba import njit

from model import simd
from model.simd import LANES, load, store


def apply(function, values):
    """function of a float32 array, sixteen numbers at a time."""

    @njit
    def kernel(x, y):
        for offset in range(0, len(x), LANES):
            store(y, offset, function(load(x, offset)))

    padded = np.zeros(-(-len(values) // LANES) * LANES, np.float32)
    padded[: len(values)] = values
    result = np.empty_like(padded)
    kernel(padded, result)
    return result[: len(values)]


@njit
def exp2(x):
    return simd.exp2_of_product(x, simd.constant(1.0))


RANGE = np.concatenate([np.linspace(-80, 80, 40_001), np.linspace(-1e-3, 1e-3, 1001), [0.0]]).astype(np.float32)
EXACT = RANGE.astype(np.float64)


@pytest.mark.parametrize(
    ("function", "expected", "tolerance"),
    [
        (exp2, 2.0**EXACT, 2e-7),
        (simd.sigmoid, 1 / (1 + np.exp(-EXACT)), 1e-6),
        (simd.silu, EXACT / (1 + np.exp(-EXACT)), 1e-6),
        (simd.softplus, np.logaddexp(0, EXACT), 1e-6),
    ],
    ids=["exp2", "sigmoid", "silu", "softplus"],
)
def test_relative_error(function, expected, tolerance):
    error = np.abs(apply(function, RANGE) - expected) / np.maximum(np.abs(expected), 1e-30)
    scale = 1 + np.abs(EXACT) * 0.1  # rounding the argument of an exponential costs in proportion to it
    assert (error / scale).max() < tolerance


def test_silu_slope():
    expected = torch.from_numpy(EXACT).requires_grad_()
    torch.nn.functional.silu(expected).sum().backward()
    np.testing.assert_allclose(apply(simd.silu_slope, RANGE), expected.grad, atol=1e-6)


def test_reciprocal():
    values = np.concatenate([np.logspace(-30, 30, 1000), -np.logspace(-30, 30, 1000)]).astype(np.float32)
    np.testing.assert_allclose(apply(simd.reciprocal, values), 1 / values.astype(np.float64), rtol=2e-7)


def test_exp2_is_exact_at_whole_numbers():
    """Story: 2**0 was once 1 + 7e-8, and a state that should have stayed grew with every step."""
    whole = np.arange(-100, 101).astype(np.float32)
    np.testing.assert_array_equal(apply(exp2, whole), 2.0**whole)


@pytest.mark.parametrize("function", [exp2, simd.sigmoid, simd.silu, simd.softplus])
def test_nan_stays_nan_and_stays_in_its_lane(function):
    result = apply(function, np.array([1.0, np.nan, 2.0], np.float32))
    assert list(np.isnan(result)) == [False, True, False]


@pytest.mark.parametrize(
    ("function", "at_minus", "at_plus"),
    [(exp2, 0.0, None), (simd.sigmoid, 0.0, 1.0), (simd.silu, 0.0, 1e4), (simd.softplus, 0.0, 1e4)],
)
def test_far_arguments_saturate(function, at_minus, at_plus):
    low, high = apply(function, np.array([-1e4, 1e4], np.float32))
    assert low == pytest.approx(at_minus, abs=1e-30)
    assert high > 1e37 if at_plus is None else high == pytest.approx(at_plus)


def test_bfloat16_rounds_as_torch_does():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(4096, generator=generator) * torch.logspace(-30, 30, 4096)
    values[:4] = torch.tensor([torch.nan, torch.inf, -torch.inf, 0.0])
    ties = torch.arange(4096, dtype=torch.int32) * 0x8000 + 0x3F800000
    values = torch.cat([values, ties.view(torch.float32)])

    @njit
    def convert(x, y, z):
        for offset in range(0, len(x), LANES):
            store(y, offset, load(x, offset))
            store(z, offset, load(y, offset))

    short, back = np.empty(len(values), np.int16), np.empty(len(values), np.float32)
    convert(values.numpy(), short, back)
    expected = values.bfloat16()
    np.testing.assert_array_equal(torch.from_numpy(short).view(torch.bfloat16).float(), expected.float())
    np.testing.assert_array_equal(back, expected.float())


def test_spread_and_total():
    @njit
    def kernel(x):
        return simd.total(simd.spread(x, 3)), simd.total(load(x, 0))

    x = np.arange(16, dtype=np.float32)
    assert kernel(x) == (48.0, 120.0)


@pytest.mark.skipif("NUMBA_CPU_NAME" in os.environ, reason="is already the other processor")
@pytest.mark.skipif(not simd._AVX512, reason="this machine runs the other code anyway")
def test_processors_without_avx512(tmp_path):
    """The same tests again, compiled for a processor with AVX2 only."""
    environment = os.environ | {
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx2,+fma",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stdout[-3000:]
