"""The selective scan through our own Triton kernels, as a torch operator: it prepares the launch (`triton_kernels.py`).

Used on CUDA devices where mamba_ssm is not installed. Triton's interpreter runs the same kernels on a CPU, for tests.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.torch_operator import torch_operator
from model.triton_kernels import scan_ends, scan_gradients, scan_stretch

CHUNK = 64
"""Steps between the states that are kept for the backward pass."""
CHANNELS = 32
"""Channels of one forward program: one per thread of its single warp."""
BACKWARD_CHANNELS = 4
PROGRAMS = 2048
"""Warps that keep a large GPU busy; fewer sequences and channels than that are cut into stretches of steps."""


class Arguments(NamedTuple):
    """The tensors of a scan as `selective_scan` takes them."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None


def triton_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
) -> Tensor:
    """The scan on a CUDA device; arguments as `selective_scan`'s, fastest with channels side by side in memory.

    Raises: ValueError for float64.
    """
    if u.dtype == torch.float64:
        raise ValueError("the triton scan computes float32, bfloat16 and float16, not torch.float64")
    tensors = Arguments(u, delta, A, B, C, D, z, delta_bias)
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return _scan_op(*tensors, delta_softplus, reverse, keep)[0]


def _float32(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().to(torch.float32).contiguous()


def _strides(*tensors: Tensor | None) -> tuple[tuple[int, ...], ...]:
    return tuple((0, 0, 0) if tensor is None else tensor.stride() for tensor in tensors)


def _state_blocks(A: Tensor) -> dict[str, int]:
    states = A.shape[1]
    return {"N": states, "N_BLOCK": 1 << max(states - 1, 0).bit_length()}


def _count(length: int, size: int) -> int:
    return (length + size - 1) // size


def _stretch_steps(batch: int, width: int, length: int) -> int:
    """How many steps one forward program takes: all, unless that leaves the device idle."""
    programs = batch * _count(width, CHANNELS)
    stretches = min(_count(length, CHUNK), _count(PROGRAMS, programs))
    return _count(_count(length, stretches), CHUNK) * CHUNK


@torch_operator("hark::selective_scan_triton", devices=("CPU", "CUDA"))
def _scan_op(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    """(out (Bsz, D, L), states before each chunk (Bsz, chunks, N, D) or an empty tensor), channels side by side."""
    batch, width, length = u.shape
    out, states = _empty_out(u), _empty_states(u, A, keep_states)
    if out.numel() == 0:
        return out, states
    rates, skip, bias = _float32(A.T), _float32(D), _float32(delta_bias)
    steps = _stretch_steps(batch, width, length)
    stretches = _count(length, steps)
    ends = u.new_empty((batch, stretches, A.shape[1], width), dtype=torch.float32) if stretches > 1 else None
    totals = u.new_empty((batch, stretches, width), dtype=torch.float32) if stretches > 1 else None
    grid = (_count(width, CHANNELS), batch, stretches)
    sizes = (width, width, length, steps)
    options: dict[str, Any] = {**_state_blocks(A), "SOFTPLUS": delta_softplus, "REVERSE": reverse}
    options |= {"STRETCHES": stretches, "CHANNELS": CHANNELS, "num_warps": 1}
    if stretches > 1:
        taken = (u, delta, None, B, None, None)
        scan_ends[grid](taken, _strides(*taken), rates, bias, ends, totals, *sizes, **options)
    signals = (u, delta, z, B, C, out)
    scan_stretch[grid](
        *(signals, _strides(*signals), rates, skip, bias, ends, totals, states if keep_states else None),
        *sizes,
        **options,
        CHUNK=CHUNK,
    )
    return out, states


def _empty_out(u: Tensor) -> Tensor:
    """(Bsz, D, L), channels side by side."""
    batch, width, length = u.shape
    return u.new_empty(batch, length, width).transpose(1, 2)


def _empty_states(u: Tensor, A: Tensor, keep: bool) -> Tensor:
    batch, width, length = u.shape
    return u.new_empty((batch, _count(length, CHUNK), A.shape[1], width) if keep else 0, dtype=torch.float32)


@torch.library.register_fake(_scan_op)
def _(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    return _empty_out(u), _empty_states(u, A, keep_states)


@torch_operator("hark::selective_scan_triton_backward", devices=("CPU", "CUDA"))
def _scan_backward_op(
    out_grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    states: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    """Gradients of the Arguments, float32 and contiguous; empty where there is no input."""
    batch, width, length = u.shape
    own = tuple(u.new_empty(u.shape, dtype=torch.float32) for _ in range(3))  # of u, delta, z
    shared = tuple(u.new_zeros(tensor.shape, dtype=torch.float32) for tensor in (B, C))
    sums = tuple(u.new_zeros(batch, *shape, dtype=torch.float32) for shape in (A.shape, (width,), (width,)))
    if u.numel():
        signals = (u, delta, z, B, C, out_grad)
        scan_gradients[(_count(width, BACKWARD_CHANNELS), batch)](
            *(signals, _strides(*signals), _float32(A), _float32(D), _float32(delta_bias), states),
            *(own, shared, sums, width, length),
            **_state_blocks(A),
            SOFTPLUS=delta_softplus,
            REVERSE=reverse,
            CHUNK=CHUNK,
            CHANNELS=BACKWARD_CHANNELS,
            num_warps=1,
        )
    A_grad, D_grad, bias_grad = (gradient.sum(0) for gradient in sums)
    gradients = [own[0], own[1], A_grad, shared[0], shared[1], D_grad, own[2], bias_grad]
    inputs = Arguments(u, delta, A, B, C, D, z, delta_bias)
    return [u.new_empty(0) if x is None else gradient for x, gradient in zip(inputs, gradients, strict=True)]


@torch.library.register_fake(_scan_backward_op)
def _(
    out_grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    states: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    inputs = Arguments(u, delta, A, B, C, D, z, delta_bias)
    return [u.new_empty(0) if x is None else u.new_empty(x.shape, dtype=torch.float32) for x in inputs]


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    tensors, (ctx.delta_softplus, ctx.reverse, _) = inputs[:8], inputs[8:]
    ctx.save_for_backward(*tensors, output[1])


def _backward(ctx: Any, out_grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, states = ctx.saved_tensors
    gradients = _scan_backward_op(out_grad, *tensors, states, ctx.delta_softplus, ctx.reverse)
    pairs = zip(tensors, gradients, strict=True)
    return *(None if tensor is None else gradient.to(tensor.dtype) for tensor, gradient in pairs), None, None, None


torch.library.register_autograd(_scan_op, _backward, setup_context=_save_for_backward)
