"""The selective scan compiled for CPUs with Numba: sixteen channels side by side in a register, four states at a time.

    for direction                     forwards, backwards or both over the same inputs
        for chunk of CHUNK steps      rows are read and written as they lie in memory: u, delta → steps; sums, z → out
            for block of 16 channels  its steps, inputs and sums stay in the first-level cache
                for 4 of the N states     h0..h3 stay in registers along the chunk
                    for step              h = exp2(step * A) * h + step * u * B;  sum += C * h

Softplus, D-skip and SiLU gate are fused. The recurrence is Mamba's (arXiv 2312.00752, eq. 2); `scan_gradients.py` has
the backward pass.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from model import simd
from model.compiled import compiled
from model.simd import (
    LANES,
    constant,
    dot4,
    exp2_of_product4,
    fma,
    fma4,
    four,
    load,
    load4,
    silu,
    softplus,
    spread4,
    store,
    store4,
    times4,
)

GROUP = 4
"""States advanced together; N is padded to a multiple of it."""
CHUNK = 32
"""Steps between stored states: long enough to amortise loads, short enough for the first-level cache."""


class Inputs(NamedTuple):
    """What a scan reads: C-contiguous arrays, D a multiple of 16 and N of 4 (the caller pads).

    u, delta, z (Bsz, L, D) are float32 or the bits of bfloat16; z is empty where there is no gate. The others are
    float32: A (directions, N, D) times log2(e); B, C (Bsz, L, N); D and the bias of delta (D,).
    """

    u: np.ndarray
    delta: np.ndarray
    z: np.ndarray
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    bias: np.ndarray


class Options(NamedTuple):
    """How a scan runs; with two directions the first runs forwards and the second backwards."""

    softplus: bool
    gate: bool
    reverse: bool
    keep_states: bool


class Span(NamedTuple):
    """A chunk's steps of the blocks low..high: step i is row `row + i * step`, counted through all sequences."""

    row: int
    step: int
    size: int
    low: int
    high: int


class Tiles(NamedTuple):
    """A span's step sizes, step * u and C * h, each (blocks, CHUNK, 16)."""

    steps: np.ndarray
    inputs: np.ndarray
    sums: np.ndarray


@njit
def make_tile(blocks: int) -> np.ndarray:
    """Uninitialised (blocks, CHUNK, 16) float32, each row a cache line: a vector across two lines costs two loads."""
    flat = np.empty((blocks * CHUNK + 1) * LANES, np.float32)
    skip = (-flat.ctypes.data % 64) // 4
    return flat[skip : skip + blocks * CHUNK * LANES].reshape(blocks, CHUNK, LANES)


@njit
def make_span(chunk: int, sequence: int, length: int, low: int, high: int, reverse: bool) -> Span:
    """The steps of one chunk; in reverse, chunk 0 starts at the sequence's last step."""
    start = chunk * CHUNK
    size = min(CHUNK, length - start)
    if reverse:
        return Span(sequence * length + length - 1 - start, -1, size, low, high)
    return Span(sequence * length + start, 1, size, low, high)


@compiled(sources=[simd.__file__])
def scan_forward(inputs: Inputs, out: np.ndarray, states: np.ndarray, options: Options, first: int, last: int) -> None:
    """Scan the tasks first..last (task = sequence * blocks + block of 16 channels) into `out`, which is like u.

    states: (directions, Bsz, chunks, N, D) receives the state at each chunk's start, or is not touched.
    """
    _, length, width = inputs.u.shape
    directions, state_size, _ = inputs.A.shape
    blocks = width // LANES
    tiles = Tiles(make_tile(blocks), make_tile(blocks), make_tile(blocks))
    h = np.empty((state_size, width), np.float32)
    aside = np.empty((length if directions > 1 else 0, width), np.float32)
    for sequence in range(first // blocks, (last + blocks - 1) // blocks):
        low = max(first - sequence * blocks, 0)
        high = min(last - sequence * blocks, blocks)
        for direction in range(directions):
            h.fill(0)
            for chunk in range((length + CHUNK - 1) // CHUNK):
                span = make_span(chunk, sequence, length, low, high, options.reverse or direction > 0)
                load_tiles(inputs, options.softplus, span, tiles)
                if options.keep_states:
                    _keep_states(span, h, states[direction, sequence, chunk])
                for block in range(low, high):
                    for n in range(0, state_size, GROUP):
                        _advance(inputs, direction, n, block, span, h, tiles)
                if direction < directions - 1:
                    _put_aside(span, tiles, sequence * length, aside)
                else:
                    _finish(inputs, options.gate, span, tiles, sequence * length, aside, out)


@njit
def load_tiles(inputs: Inputs, softplus_on: bool, span: Span, tiles: Tiles) -> None:
    """Fill the step sizes and inputs, and clear the sums."""
    width = inputs.u.shape[2]
    for i in range(span.size):
        for block in range(span.low, span.high):
            channel, place = block * LANES, (block * CHUNK + i) * LANES
            offset = (span.row + i * span.step) * width + channel
            step = load(inputs.delta, offset) + load(inputs.bias, channel)
            if softplus_on:
                step = softplus(step)
            store(tiles.steps, place, step)
            store(tiles.inputs, place, step * load(inputs.u, offset))
            store(tiles.sums, place, constant(0.0))


@njit
def _keep_states(span: Span, h: np.ndarray, kept: np.ndarray) -> None:
    state_size, width = h.shape
    for n in range(state_size):
        for block in range(span.low, span.high):
            place = n * width + block * LANES
            store(kept, place, load(h, place))


@njit
def _advance(inputs: Inputs, direction: int, n: int, block: int, span: Span, states: np.ndarray, tiles: Tiles) -> None:
    """Advance states n..n+3 of a block through the span and add C * h to the sums."""
    _, state_size, width = inputs.A.shape
    place = n * width + block * LANES
    h, a = load4(states, place, width), load4(inputs.A, direction * state_size * width + place, width)
    for i in range(span.size):
        lane = (block * CHUNK + i) * LANES
        k = (span.row + i * span.step) * state_size + n
        decays = exp2_of_product4(four(load(tiles.steps, lane)), a)
        h = fma4(decays, h, times4(four(load(tiles.inputs, lane)), spread4(inputs.B, k)))
        store(tiles.sums, lane, dot4(h, spread4(inputs.C, k), load(tiles.sums, lane)))
    store4(states, place, width, h)


@njit
def _put_aside(span: Span, tiles: Tiles, first_row: int, aside: np.ndarray) -> None:
    """Keep the first direction's sums for the second, in the rows of this sequence."""
    width = aside.shape[1]
    for i in range(span.size):
        row = span.row + i * span.step - first_row
        for block in range(span.low, span.high):
            store(aside, row * width + block * LANES, load(tiles.sums, (block * CHUNK + i) * LANES))


@njit
def _finish(
    inputs: Inputs, gated: bool, span: Span, tiles: Tiles, first_row: int, aside: np.ndarray, out: np.ndarray
) -> None:
    """Turn sums into outputs: add the other direction's sums and the D-skip, then the gate."""
    width = inputs.u.shape[2]
    for i in range(span.size):
        row = span.row + i * span.step
        for block in range(span.low, span.high):
            channel = block * LANES
            offset = row * width + channel
            y = fma(load(inputs.D, channel), load(inputs.u, offset), load(tiles.sums, (block * CHUNK + i) * LANES))
            if len(aside) > 0:
                y = y + load(aside, (row - first_row) * width + channel)
            if gated:
                y = y * silu(load(inputs.z, offset))
            store(out, offset, y)
