"""The depthwise causal convolution with SiLU that stands before Mamba's scan: compiled for CPUs, causal-conv1d on CUDA.

    out[t] = silu(bias + sum_k weight[k] x[t - (K - 1) + k])      x before the first step is zero

Follows `causal_conv1d_fn` (Dao-AILab/causal-conv1d, BSD-3-Clause) in layout and names; where that package is missing
on a CUDA machine, torch's own operators compute the same.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model.conv_kernels import conv_backward, conv_forward
from model.cpu_threads import WORTH_A_SLICE, run_slices, slice_count
from model.kernel_arrays import as_array, channel_vector, channels_last, common_dtype, values
from model.remembered import remembered
from model.simd import LANES
from model.torch_operator import torch_operator


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor, reverse: bool = False) -> Tensor:
    """Convolve each channel with its own kernel, looking back in time (forward in time if `reverse`), then SiLU.

    Shapes: x (Bsz, D, L); weight (D, K); bias (D,). Returns (Bsz, D, L) in x's dtype; the arithmetic is float32
    (float64 for float64 inputs).

    Raises: ValueError for shapes that do not fit together.
    """
    if x.ndim != 3 or weight.ndim != 2 or weight.shape[0] != x.shape[1] or bias.shape != weight.shape[:1]:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (x, weight, bias))
        raise ValueError(f"causal_conv: x must be (Bsz, D, L), weight (D, K) and bias (D,), got {shapes}")
    if x.dtype == torch.float64:
        return causal_conv_reference(x, weight, bias, reverse)
    if x.device.type == "cpu":
        return _conv_op(x, weight, bias, reverse)
    if x.device.type == "cuda" and 2 <= weight.shape[1] <= 4 and (package := _cuda_package()):
        return _cuda_conv(package, x, weight, bias, reverse)
    return causal_conv_reference(x, weight, bias, reverse)


def causal_conv_reference(x: Tensor, weight: Tensor, bias: Tensor, reverse: bool = False) -> Tensor:
    """The same in torch's own operators, on any device."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    taps = weight.shape[1]
    padded = functional.pad(x.to(dtype), (0, taps - 1) if reverse else (taps - 1, 0))
    kernel = (weight.flip(1) if reverse else weight).to(dtype)
    return functional.silu(functional.conv1d(padded, kernel[:, None], bias.to(dtype), groups=x.shape[1])).to(x.dtype)


@cache
def _cuda_package() -> Any:
    """The module causal_conv1d, or None where it is not installed."""
    try:
        import causal_conv1d
    except ImportError:
        return None
    return causal_conv1d


def _cuda_conv(package: Any, x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """The CUDA kernel takes 2 to 4 taps and weights in x's dtype, and only looks back: time is flipped around it."""
    convolve: Callable[..., Tensor] = package.causal_conv1d_fn
    weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    if reverse:
        return convolve(x.flip(2), weight, bias, activation="silu").flip(2)
    return convolve(x, weight, bias, activation="silu")


@remembered
def _weight_rows(weight: Tensor) -> Tensor:
    """(D, K) → (K, D') float32, D' padded to whole vectors."""
    rows = values(weight, torch.float32).T
    return functional.pad(rows, (0, -rows.shape[1] % LANES)).contiguous()


@torch_operator("hark::causal_conv")
def _conv_op(x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    rows = channels_last(x, common_dtype(x))
    out = torch.empty_like(rows)
    arrays = [as_array(tensor) for tensor in (rows, _weight_rows(weight), channel_vector(bias, len(bias)), out)]

    def convolve(_: int, first: int, last: int) -> None:
        conv_forward(*arrays, reverse, first, last)

    items = rows.shape[0] * rows.shape[1]
    run_slices(convolve, items, slice_count(items, 1 + WORTH_A_SLICE // rows.shape[2]))
    return values(out[..., : x.shape[1]], x.dtype).transpose(1, 2)


@torch.library.register_fake(_conv_op)
def _(x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    return _padded_rows(x)


def _padded_rows(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An empty (Bsz, D, L) in the memory layout that the kernels leave behind."""
    batch, width, length = x.shape
    return x.new_empty(batch, length, width + -width % LANES, dtype=dtype)[..., :width].transpose(1, 2)


@torch_operator("hark::causal_conv_backward")
def _conv_backward_op(out_grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> list[Tensor]:
    """Gradients of (x, weight, bias), float32."""
    rows, gradient = channels_last(x, torch.float32), channels_last(out_grad, torch.float32)
    kernel, shift = _weight_rows(weight), channel_vector(bias, len(bias))
    x_grad, kernel_grad, shift_grad = torch.empty_like(rows), torch.zeros_like(kernel), torch.zeros_like(shift)
    arrays = [as_array(tensor) for tensor in (rows, kernel, shift, gradient, x_grad, kernel_grad, shift_grad)]
    blocks = rows.shape[2] // LANES  # slices own separate channels, so they may share the sums
    run_slices(lambda _, first, last: conv_backward(*arrays, reverse, first, last), blocks, slice_count(blocks))
    width = x.shape[1]
    return [x_grad[..., :width].transpose(1, 2), kernel_grad[:, :width].T.contiguous(), shift_grad[:width].clone()]


@torch.library.register_fake(_conv_backward_op)
def _(out_grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> list[Tensor]:
    sums = [weight.new_empty(weight.shape, dtype=torch.float32), bias.new_empty(bias.shape, dtype=torch.float32)]
    return [_padded_rows(x, torch.float32), *sums]


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, ctx.reverse = inputs
    ctx.save_for_backward(x, weight, bias)


def _backward(ctx: Any, out_grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    gradients = _conv_backward_op(out_grad, *tensors, ctx.reverse)
    return *(gradient.to(tensor.dtype) for gradient, tensor in zip(gradients, tensors, strict=True)), None


torch.library.register_autograd(_conv_op, _backward, setup_context=_save_for_backward)
