"""The selective scan through mamba_ssm's CUDA kernel.

Source of the call: state-spaces/mamba:mamba_ssm/ops/selective_scan_interface.py, Apache-2.0.

The kernel scans forwards only, so a reversed scan flips its inputs and its output in time.
"""

import torch
from torch import Tensor

try:
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
except ImportError as missing:
    raise ImportError(
        "the cuda scan needs mamba-ssm with its selective_scan_cuda (\"pip install 'hark[gpu]'\", built with"
        ' MAMBA_KEEP_CUDA_BUILD=TRUE); the "triton" implementation needs neither'
    ) from missing


def cuda_scan(
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
    """The scan on a CUDA device; arguments as `selective_scan`'s, fastest with steps side by side in memory.

    The kernel asks for u, delta, z, B and C in one dtype and for A, D and the bias in float32, and keeps a float32
    state.

    Raises: ValueError for float64.
    """
    if u.dtype == torch.float64:
        raise ValueError("the cuda scan computes float32, bfloat16 and float16, not torch.float64")
    dtypes = {tensor.dtype for tensor in (u, delta, B, C, z) if tensor is not None}
    dtype = u.dtype if len(dtypes) == 1 else torch.float32
    u_in, delta_in, z_in, B_in, C_in = (_as_kernel_input(tensor, dtype, reverse) for tensor in (u, delta, z, B, C))
    A_in, D_in, bias_in = (None if tensor is None else tensor.float() for tensor in (A, D, delta_bias))
    out = selective_scan_fn(u_in, delta_in, A_in, B_in, C_in, D_in, z_in, bias_in, delta_softplus)
    return (out.flip(2) if reverse else out).to(u.dtype)


def _as_kernel_input(tensor: Tensor | None, dtype: torch.dtype, reverse: bool) -> Tensor | None:
    if tensor is None:
        return None
    return tensor.to(dtype).flip(2) if reverse else tensor.to(dtype)
