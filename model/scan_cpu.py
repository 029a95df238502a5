"""The selective scan on CPUs as a torch custom operator: it prepares the arrays, the compiled kernels do the work.

Registered with fake tensors and autograd, so it works under torch.compile and torch.export; safe from several threads.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.cpu_threads import run_slices, slice_count
from model.kernel_arrays import as_array, channel_vector, channels_last, common_dtype, values
from model.remembered import remembered
from model.scan_gradients import Gradients, scan_backward
from model.scan_kernels import CHUNK, GROUP, Inputs, Options, scan_forward
from model.simd import LANES, LOG2E
from model.torch_operator import torch_operator


class Arguments(NamedTuple):
    """The tensors of a scan as `selective_scan` takes them; `A_reverse` (D, N) asks for both directions."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    A_reverse: Tensor | None


def cpu_scan(
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
    A_reverse: Tensor | None = None,
) -> Tensor:
    """The scan on the CPU; arguments as `selective_scan`'s. With `A_reverse`, a scan backwards with it is added.

    Raises: ValueError for tensors on another device or of float64.
    """
    if u.device.type != "cpu" or u.dtype == torch.float64:
        raise ValueError(f"the cpu scan computes float32, bfloat16 and float16 on the CPU, not {u.dtype} on {u.device}")
    tensors = Arguments(u, delta, A, B, C, D, z, delta_bias, A_reverse)
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    return _scan_op(*tensors, delta_softplus, reverse, keep)[0]


@torch_operator("hark::selective_scan")
def _scan_op(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    A_reverse: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    """(out (Bsz, D, L), states at chunk starts for the backward pass, or an empty tensor)."""
    arguments = Arguments(u, delta, A, B, C, D, z, delta_bias, A_reverse)
    tensors = _kernel_inputs(arguments, common_dtype(u, delta, z))
    rows, rates = tensors[0], tensors[3]
    out = torch.empty_like(rows)
    states = torch.empty(_states_shape(rows, rates) if keep_states else (0, 0, 0, 0, 0))
    inputs, out_array, states_array = Inputs(*map(as_array, tensors)), as_array(out), as_array(states)
    options = Options(delta_softplus, z is not None, reverse, keep_states)

    def scan(_: int, first: int, last: int) -> None:
        scan_forward(inputs, out_array, states_array, options, first, last)

    items = rows.shape[0] * (rows.shape[2] // LANES)
    run_slices(scan, items, slice_count(items))
    return values(out[..., : u.shape[1]], u.dtype).transpose(1, 2), states


def _kernel_inputs(arguments: Arguments, dtype: torch.dtype) -> list[Tensor]:
    """The kernels' Inputs as tensors, u, delta and z in `dtype`."""
    u, delta, A, B, C, D, z, delta_bias, A_reverse = arguments
    gate = torch.empty(0, 0, 0, dtype=dtype) if z is None else channels_last(z, dtype)
    rates = _rates(A, A_reverse)
    skip, bias = (channel_vector(tensor, len(A)) for tensor in (D, delta_bias))
    signals = [channels_last(u, dtype), channels_last(delta, dtype), gate]
    return [
        *signals,
        rates,
        *(channels_last(tensor, torch.float32, GROUP) for tensor in (B, C)),
        len(rates) * skip,
        bias,
    ]


def _rates(A: Tensor, A_reverse: Tensor | None) -> Tensor:
    """A of each direction (D, N) → (directions, N', D') float32, times log2(e), padded with zeros."""
    directions = [A] if A_reverse is None else [A, A_reverse]
    return torch.stack([_padded_rates(rates) for rates in directions])


@remembered
def _padded_rates(A: Tensor) -> Tensor:
    width, states = A.shape
    rates = values(A, torch.float32).T * LOG2E
    return functional.pad(rates, (0, -width % LANES, 0, -states % GROUP))


def _states_shape(rows: Tensor, rates: Tensor) -> tuple[int, ...]:
    """(directions, Bsz, chunks, N', D') for u's rows (Bsz, L, D') and the rates (directions, N', D')."""
    return rates.shape[0], rows.shape[0], (rows.shape[1] + CHUNK - 1) // CHUNK, rates.shape[1], rows.shape[2]


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
    A_reverse: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    keep_states: bool,
) -> tuple[Tensor, Tensor]:
    rows = _empty_rows(u, u.dtype)
    rates = u.new_empty(1 if A_reverse is None else 2, A.shape[1] + -A.shape[1] % GROUP, rows.shape[2])
    states = u.new_empty(_states_shape(rows, rates) if keep_states else (0, 0, 0, 0, 0), dtype=torch.float32)
    return rows[..., : u.shape[1]].transpose(1, 2), states


def _empty_rows(u: Tensor, dtype: torch.dtype) -> Tensor:
    """What `channels_last` makes of u, without its values."""
    batch, width, length = u.shape
    return u.new_empty(batch, length, width + -width % LANES, dtype=dtype)


@torch_operator("hark::selective_scan_backward")
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
    A_reverse: Tensor | None,
    states: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    """Gradients of the Arguments, float32, in their shapes; empty where there is no input."""
    arguments = Arguments(u, delta, A, B, C, D, z, delta_bias, A_reverse)
    tensors = _kernel_inputs(arguments, torch.float32)
    inputs, states_array = Inputs(*map(as_array, tensors)), as_array(states)
    out_grad_array = as_array(channels_last(out_grad, torch.float32))
    items = tensors[0].shape[0] * (tensors[0].shape[2] // LANES)
    slices = slice_count(items)
    shared = [torch.empty_like(tensor) for tensor in tensors[:3]]  # of u, delta, z
    sums = [torch.zeros(slices, *tensor.shape) for tensor in tensors[3:]]  # of A, B, C, D, bias: one per slice
    targets = [Gradients(*map(as_array, (*shared, *(own[i] for own in sums)))) for i in range(slices)]
    options = Options(delta_softplus, z is not None, reverse, keep_states=True)

    def scan(i: int, first: int, last: int) -> None:
        scan_backward(inputs, states_array, out_grad_array, targets[i], options, first, last)

    run_slices(scan, items, slices)
    return _as_arguments([*shared, *(own.sum(0) for own in sums)], arguments)


def _as_arguments(gradients: list[Tensor], arguments: Arguments) -> list[Tensor]:
    """The kernels' gradients, one for each of Inputs, unpadded and in the order of Arguments; none share memory."""
    width, states = arguments.A.shape
    u, delta, z = (gradient[..., :width].transpose(1, 2) for gradient in gradients[:3])
    rates = [rate[:states, :width].T.contiguous() for rate in gradients[3]]
    B, C = (gradient[..., :states].transpose(1, 2).contiguous() for gradient in gradients[4:6])
    skip = torch.empty(0) if arguments.D is None else gradients[6][:width] * len(rates)
    bias = torch.empty(0) if arguments.delta_bias is None else gradients[7][:width].clone()
    return [u, delta, rates[0], B, C, skip, z, bias, torch.empty(0) if len(rates) == 1 else rates[1]]


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
    A_reverse: Tensor | None,
    states: Tensor,
    delta_softplus: bool,
    reverse: bool,
) -> list[Tensor]:
    def rows() -> Tensor:
        return _empty_rows(u, torch.float32)[..., : u.shape[1]].transpose(1, 2)

    def like(tensor: Tensor | None) -> Tensor:
        return u.new_empty(0 if tensor is None else tensor.shape, dtype=torch.float32)

    gate = u.new_empty(0, 0, 0, dtype=torch.float32) if z is None else rows()
    return [rows(), rows(), like(A), like(B), like(C), like(D), gate, like(delta_bias), like(A_reverse)]


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    tensors, (ctx.delta_softplus, ctx.reverse, _) = inputs[:9], inputs[9:]
    ctx.save_for_backward(*tensors, output[1])


def _backward(ctx: Any, out_grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, states = ctx.saved_tensors
    gradients = _scan_backward_op(out_grad, *tensors, states, ctx.delta_softplus, ctx.reverse)
    pairs = zip(tensors, gradients, strict=True)
    return *(None if tensor is None else gradient.to(tensor.dtype) for tensor, gradient in pairs), None, None, None


torch.library.register_autograd(_scan_op, _backward, setup_context=_save_for_backward)
