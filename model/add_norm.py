"""The residual sum and RMS norm at the head of each Mamba layer, in one pass over memory on CPUs.

On a fast matrix unit (bfloat16 with AMX) torch's separate operators would cost a tenth of the network's time.
"""

import torch
from torch import Tensor, nn

from model.cpu_threads import WORTH_A_SLICE, run_slices, slice_count
from model.kernel_arrays import STORED, as_array
from model.norm_kernels import add_rms_norm_rows
from model.simd import LANES
from model.torch_operator import torch_operator


def add_rms_norm(h: Tensor, residual: Tensor, norm: nn.RMSNorm, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(norm(residual + h) in `dtype`, residual + h in float32), for h and residual (B, L, D) and a norm over D."""
    wants_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in (h, residual, norm.weight))
    fits = h.device.type == "cpu" and h.shape[-1] % LANES == 0 and {h.dtype, dtype} <= set(STORED)
    if fits and not wants_gradient and residual.dtype == norm.weight.dtype == torch.float32 and norm.eps is not None:
        return _add_rms_norm_op(h, residual, norm.weight, norm.eps, dtype)
    summed = residual + h
    return norm(summed).to(dtype), summed


@torch_operator("hark::add_rms_norm")
def _add_rms_norm_op(
    h: Tensor, residual: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    h, residual = h.contiguous(), residual.contiguous()
    summed, normed = torch.empty_like(residual), torch.empty_like(residual, dtype=dtype)
    rows = h.numel() // h.shape[-1]
    read = [as_array(tensor) for tensor in (h, residual)]
    written = [as_array(tensor) for tensor in (summed, normed)]
    scale = as_array(weight.contiguous())

    def add_and_norm(_: int, first: int, last: int) -> None:
        add_rms_norm_rows(*read, scale, epsilon, *written, first, last)

    run_slices(add_and_norm, rows, slice_count(rows, 1 + WORTH_A_SLICE // h.shape[-1]))
    return normed, summed


@torch.library.register_fake(_add_rms_norm_op)
def _(h: Tensor, residual: Tensor, weight: Tensor, epsilon: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return residual.new_empty(residual.shape, dtype=dtype), residual.new_empty(residual.shape)
