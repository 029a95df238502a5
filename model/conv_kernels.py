"""The depthwise causal convolution with SiLU compiled for CPUs with Numba, sixteen channels side by side in a register.

Arrays are C-contiguous: x, out and their gradients (Bsz, L, D) with D a multiple of 16; weight (K, D) and bias (D,)
float32. Tap k reads step t - (K - 1) + k, mirrored in time when `reverse`; steps outside the sequence count as zero.
"""

import numpy as np
from numba import njit

from model import simd
from model.compiled import compiled
from model.simd import LANES, Vector, constant, fma, load, silu, silu_slope, store


@njit
def _taps_inside(t: int, length: int, taps: int, reverse: bool) -> int:
    """How many taps, counted from the last, read a step inside the sequence."""
    return min(taps, (length - 1 - t if reverse else t) + 1)


@njit
def _before_silu(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, row: int, inside: int, channel: int, back: int
) -> Vector:
    """bias + sum of weight * x for sixteen channels of a row; one tap further back lies `back` rows on."""
    width, last_tap = x.shape[2], weight.shape[0] - 1
    y = load(bias, channel)
    for lag in range(inside):
        tap = load(weight, (last_tap - lag) * width + channel)
        y = fma(tap, load(x, (row + lag * back) * width + channel), y)
    return y


@compiled(sources=[simd.__file__])
def conv_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, out: np.ndarray, reverse: bool, first: int, last: int
) -> None:
    """Compute the rows first..last, counted through all sequences; x and out are of one dtype."""
    _, length, width = x.shape
    back = 1 if reverse else -1
    for row in range(first, last):
        inside = _taps_inside(row % length, length, weight.shape[0], reverse)
        for channel in range(0, width, LANES):
            store(out, row * width + channel, silu(_before_silu(x, weight, bias, row, inside, channel, back)))


@compiled(sources=[simd.__file__])
def conv_backward(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    out_grad: np.ndarray,
    x_grad: np.ndarray,
    weight_grad: np.ndarray,
    bias_grad: np.ndarray,
    reverse: bool,
    first: int,
    last: int,
) -> None:
    """Gradients, all float32, for the blocks of 16 channels first..last; weight_grad and bias_grad are added to."""
    batch, length, width = x.shape
    taps, back = weight.shape[0], 1 if reverse else -1
    slopes = np.empty((length, width), np.float32)  # the gradient before SiLU
    for sequence in range(batch):
        start = sequence * length
        for t in range(length):
            inside = _taps_inside(t, length, taps, reverse)
            for channel in range(first * LANES, last * LANES, LANES):
                offset = (start + t) * width + channel
                y = _before_silu(x, weight, bias, start + t, inside, channel, back)
                g = load(out_grad, offset) * silu_slope(y)
                store(slopes, t * width + channel, g)
                store(bias_grad, channel, load(bias_grad, channel) + g)
                for lag in range(inside):
                    place = (taps - 1 - lag) * width + channel
                    seen = load(x, offset + lag * back * width)
                    store(weight_grad, place, fma(g, seen, load(weight_grad, place)))
        for t in range(length):
            readers = _taps_inside(t, length, taps, not reverse)  # the outputs that read step t
            for channel in range(first * LANES, last * LANES, LANES):
                sum_ = constant(0.0)
                for lag in range(readers):
                    tap = load(weight, (taps - 1 - lag) * width + channel)
                    sum_ = fma(tap, load(slopes, (t - lag * back) * width + channel), sum_)
                store(x_grad, (start + t) * width + channel, sum_)
