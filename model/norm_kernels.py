"""Residual sum and RMS norm compiled for CPUs with Numba, sixteen numbers side by side in a register.

Arrays are C-contiguous (..., D) with D a multiple of 16; h and normed are float32 or the bits of bfloat16, the
others float32.
"""

import numpy as np

from model import simd
from model.compiled import compiled
from model.simd import LANES, constant, fma, load, splat, store, total


@compiled(sources=[simd.__file__])
def add_rms_norm_rows(
    h: np.ndarray,
    residual: np.ndarray,
    weight: np.ndarray,
    epsilon: float,
    summed: np.ndarray,
    normed: np.ndarray,
    first: int,
    last: int,
) -> None:
    """summed = residual + h; normed = summed / rms(summed) * weight, for the rows first..last."""
    width = h.shape[-1]
    for row in range(first, last):
        squares = constant(0.0)
        for offset in range(row * width, (row + 1) * width, LANES):
            x = load(residual, offset) + load(h, offset)
            store(summed, offset, x)
            squares = fma(x, x, squares)
        scale = splat(1 / np.sqrt(total(squares) / np.float32(width) + np.float32(epsilon)))
        for column in range(0, width, LANES):
            x = load(summed, row * width + column) * scale
            store(normed, row * width + column, x * load(weight, column))
