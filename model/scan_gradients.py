"""The backward pass of the CPU's selective scan, compiled with Numba; layout and tiles are those of `scan_kernels.py`.

    for direction, for chunk from the last to the first
        rows → steps, inputs, gradient of y
        for 4 of the N states, for block of 16 channels
            replay the chunk from the state stored at its start: decays and states stay in the first-level cache
            sweep back:  g[t] = C[t] dy[t] + decay[t+1] g[t+1]
                dC += h dy;  dB += g x;  dx += g B;  dstep += g decay h[t-1] A;  dA += g decay h[t-1] step
        rows → gradients of u, delta, z, D, bias

Only the chunks' first states are stored, so memory stays O(Bsz * L * D).
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from model import scan_kernels, simd
from model.compiled import compiled
from model.scan_kernels import CHUNK, GROUP, Inputs, Options, Span, Tiles, load_tiles, make_span, make_tile
from model.simd import (
    LANES,
    LOG2E,
    constant,
    dot4,
    exp2_of_product,
    exp2_of_product4,
    fma,
    fma4,
    four,
    load,
    load4,
    silu,
    silu_slope,
    spread4,
    store,
    store4,
    times4,
    total,
)

_PLANE = (CHUNK + 1) * LANES
"""Elements between the states of a Replay, which holds one row more than a chunk has steps."""


class Gradients(NamedTuple):
    """Where the backward pass writes, float32, one for each of the Inputs.

    Those of u, delta, z (Bsz, L, D) are shared by all slices of the work; the others are a slice's own sums, added to.
    """

    u: np.ndarray
    delta: np.ndarray
    z: np.ndarray
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    D: np.ndarray
    bias: np.ndarray


class BackTiles(NamedTuple):
    """A span's gradients of y (before the gate), of the step sizes and of step * u, each (blocks, CHUNK, 16)."""

    y: np.ndarray
    steps: np.ndarray
    inputs: np.ndarray


class Replay(NamedTuple):
    """Four states along a chunk, 4 planes of CHUNK + 1 rows each.

    The decay at each step, the state before it, and the sums over all blocks for the gradients of B and C, lane by
    lane.
    """

    decays: np.ndarray
    history: np.ndarray
    B: np.ndarray
    C: np.ndarray


@compiled(sources=[simd.__file__, scan_kernels.__file__])
def scan_backward(
    inputs: Inputs,
    states: np.ndarray,
    out_grad: np.ndarray,
    gradients: Gradients,
    options: Options,
    first: int,
    last: int,
) -> None:
    """Gradients of the tasks first..last (as in scan_forward), from the output's (Bsz, L, D) and the kept states."""
    batch, length, width = inputs.u.shape
    directions, state_size, _ = inputs.A.shape
    blocks, chunks = width // LANES, (length + CHUNK - 1) // CHUNK
    tiles = Tiles(make_tile(blocks), make_tile(blocks), make_tile(blocks))
    back = BackTiles(make_tile(blocks), make_tile(blocks), make_tile(blocks))
    replay = Replay(make_tile(GROUP + 1), make_tile(GROUP + 1), make_tile(GROUP + 1), make_tile(GROUP + 1))
    carries = np.empty((state_size, width), np.float32)
    for sequence in range(first // blocks, (last + blocks - 1) // blocks):
        low = max(first - sequence * blocks, 0)
        high = min(last - sequence * blocks, blocks)
        for direction in range(directions):
            carries.fill(0)
            for chunk in range(chunks - 1, -1, -1):
                span = make_span(chunk, sequence, length, low, high, options.reverse or direction > 0)
                load_tiles(inputs, options.softplus, span, tiles)
                _load_gradients(inputs, options.gate, span, out_grad, back)
                stored = ((direction * batch + sequence) * chunks + chunk) * state_size * width
                for n in range(0, state_size, GROUP):
                    replay.B.fill(0)
                    replay.C.fill(0)
                    for block in range(low, high):
                        _replay(inputs, direction, n, block, span, states, stored, tiles, replay)
                        _sweep_back(inputs, direction, n, block, span, tiles, back, replay, carries, gradients.A)
                    _add_lanes(n, span, replay, gradients)
                _finish(inputs, options, direction == 0, span, tiles, back, out_grad, gradients)


@njit
def _load_gradients(inputs: Inputs, gated: bool, span: Span, out_grad: np.ndarray, back: BackTiles) -> None:
    """Fill the gradient of y, and clear the others."""
    width = inputs.u.shape[2]
    for i in range(span.size):
        for block in range(span.low, span.high):
            lane = (block * CHUNK + i) * LANES
            offset = (span.row + i * span.step) * width + block * LANES
            y_grad = load(out_grad, offset)
            if gated:
                y_grad = y_grad * silu(load(inputs.z, offset))
            store(back.y, lane, y_grad)
            store(back.steps, lane, constant(0.0))
            store(back.inputs, lane, constant(0.0))


@njit
def _replay(
    inputs: Inputs,
    direction: int,
    n: int,
    block: int,
    span: Span,
    states: np.ndarray,
    stored: int,
    tiles: Tiles,
    replay: Replay,
) -> None:
    """Run states n..n+3 of a block through the span again, from those at flat offset `stored`, keeping their way."""
    _, state_size, width = inputs.A.shape
    place = n * width + block * LANES
    h, a = load4(states, stored + place, width), load4(inputs.A, direction * state_size * width + place, width)
    for i in range(span.size):
        lane = (block * CHUNK + i) * LANES
        k = (span.row + i * span.step) * state_size + n
        decays = exp2_of_product4(four(load(tiles.steps, lane)), a)
        store4(replay.decays, i * LANES, _PLANE, decays)
        store4(replay.history, i * LANES, _PLANE, h)
        h = fma4(decays, h, times4(four(load(tiles.inputs, lane)), spread4(inputs.B, k)))
        store(tiles.sums, lane, dot4(h, spread4(inputs.C, k), load(tiles.sums, lane)))
    store4(replay.history, span.size * LANES, _PLANE, h)


@njit
def _sweep_back(
    inputs: Inputs,
    direction: int,
    n: int,
    block: int,
    span: Span,
    tiles: Tiles,
    back: BackTiles,
    replay: Replay,
    carries: np.ndarray,
    A_grad: np.ndarray,
) -> None:
    """Carry the gradients of states n..n+3 of a block from the span's last step to its first."""
    _, state_size, width = inputs.A.shape
    place = n * width + block * LANES
    rate = direction * state_size * width + place
    a, carry, a_sum = load4(inputs.A, rate, width), load4(carries, place, width), four(constant(0.0))
    after = load4(replay.history, span.size * LANES, _PLANE)
    for i in range(span.size - 1, -1, -1):
        lane, spot = (block * CHUNK + i) * LANES, i * LANES
        k = (span.row + i * span.step) * state_size + n
        y_grad = four(load(back.y, lane))
        g = fma4(spread4(inputs.C, k), y_grad, carry)
        store4(replay.C, spot, _PLANE, fma4(y_grad, after, load4(replay.C, spot, _PLANE)))
        store4(replay.B, spot, _PLANE, fma4(g, four(load(tiles.inputs, lane)), load4(replay.B, spot, _PLANE)))
        store(back.inputs, lane, dot4(g, spread4(inputs.B, k), load(back.inputs, lane)))
        carry = times4(g, load4(replay.decays, spot, _PLANE))
        after = load4(replay.history, spot, _PLANE)  # the state before this step, after the previous one
        through_decay = times4(carry, after)
        store(back.steps, lane, dot4(through_decay, a, load(back.steps, lane)))
        a_sum = fma4(through_decay, four(load(tiles.steps, lane)), a_sum)
    store4(carries, place, width, carry)
    store4(A_grad, rate, width, fma4(a_sum, four(constant(1.0)), load4(A_grad, rate, width)))


@njit
def _add_lanes(n: int, span: Span, replay: Replay, gradients: Gradients) -> None:
    """Add the channels' sums to the gradients of B and C, states n..n+3."""
    state_size = gradients.B.shape[2]
    B_grad, C_grad = gradients.B.reshape(-1), gradients.C.reshape(-1)
    for i in range(span.size):
        k = (span.row + i * span.step) * state_size + n
        for j in range(GROUP):
            B_grad[k + j] += total(load(replay.B, j * _PLANE + i * LANES))
            C_grad[k + j] += total(load(replay.C, j * _PLANE + i * LANES))


@njit
def _finish(
    inputs: Inputs,
    options: Options,
    first_direction: bool,
    span: Span,
    tiles: Tiles,
    back: BackTiles,
    out_grad: np.ndarray,
    gradients: Gradients,
) -> None:
    """Turn the span's gradients into those of u, delta, z, D and the bias; the D-skip counts in one direction."""
    width = inputs.u.shape[2]
    for i in range(span.size):
        for block in range(span.low, span.high):
            channel, lane = block * LANES, (block * CHUNK + i) * LANES
            offset = (span.row + i * span.step) * width + channel
            u, step, y_grad = load(inputs.u, offset), load(tiles.steps, lane), load(back.y, lane)
            y, input_grad = load(tiles.sums, lane), load(back.inputs, lane)
            u_grad = input_grad * step
            step_grad = fma(input_grad, u, load(back.steps, lane) * constant(1 / LOG2E))  # A came times log2(e)
            if options.softplus:  # softplus' = sigmoid of its argument = 1 - exp(-softplus)
                step_grad = step_grad * (constant(1.0) - exp2_of_product(step, constant(-LOG2E)))
            store(gradients.bias, channel, load(gradients.bias, channel) + step_grad)
            if first_direction:
                skip = load(inputs.D, channel)
                y, u_grad = fma(skip, u, y), fma(skip, y_grad, u_grad)
                store(gradients.D, channel, fma(y_grad, u, load(gradients.D, channel)))
            else:
                u_grad = u_grad + load(gradients.u, offset)
                step_grad = step_grad + load(gradients.delta, offset)
            store(gradients.u, offset, u_grad)
            store(gradients.delta, offset, step_grad)
            if options.gate:
                z_grad = load(out_grad, offset) * y * silu_slope(load(inputs.z, offset))
                if not first_direction:
                    z_grad = z_grad + load(gradients.z, offset)
                store(gradients.z, offset, z_grad)
