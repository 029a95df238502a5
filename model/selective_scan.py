"""The selective scan of Mamba: one function, one readable reference and compiled implementations of it.

    h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t]        h[-1] = 0
    y[t] = C[t] h[t] + D u[t]                                 out[t] = y[t] silu(z[t])

Layout and names follow mamba_ssm's `selective_scan_fn` (state-spaces/mamba:mamba_ssm/ops/selective_scan_interface.py,
Apache-2.0).
"""

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from model.scan_cpu import cpu_scan

IMPLEMENTATIONS = ("cuda", "triton", "cpu", "reference")

_HAS_MAMBA_SSM = all(importlib.util.find_spec(name) for name in ("mamba_ssm", "selective_scan_cuda"))

Scan = Callable[..., Tensor]
"""(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse) → out."""


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    reverse: bool = False,
    implementation: str = "auto",
) -> Tensor:
    """Scan along time, forwards or (`reverse`) from the last step to the first, with a float32 state.

    Shapes: u, delta, z (Bsz, D, L); A (D, N); B, C (Bsz, N, L); D, delta_bias (D,). Returns (Bsz, D, L) in u's dtype.
    "auto" takes `default_implementation`; float64, which only the reference computes (with its state), takes that.

    Raises: ValueError for shapes that do not fit together or an unknown implementation; ImportError if the
    implementation's package is missing.
    """
    _check_shapes(u, delta, A, B, C, D, z, delta_bias)
    scan = _implementation(u, implementation)
    return scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, reverse)


def bidirectional_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    A_reverse: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    implementation: str = "auto",
) -> Tensor:
    """The sum of a scan forwards with A and one backwards with A_reverse over the same inputs: AuM's Fo-Bi.

    Arguments are those of `selective_scan`; D u counts twice. The CPU kernel computes both in one pass.

    Raises: as `selective_scan`.
    """
    _check_shapes(u, delta, A, B, C, D, z, delta_bias)
    if A_reverse.shape != A.shape:
        raise ValueError(f"selective_scan: A_reverse has shape {tuple(A_reverse.shape)}, expected {tuple(A.shape)}")
    scan = _implementation(u, implementation)
    if scan is cpu_scan:
        return cpu_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, False, A_reverse)
    forwards = scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, False)
    return forwards + scan(u, delta, A_reverse, B, C, D, z, delta_bias, delta_softplus, True)


def _implementation(u: Tensor, name: str) -> Scan:
    """The function behind a name; the packages of "cuda" and "triton" are imported when first asked for."""
    if name == "auto":
        name = "reference" if u.dtype == torch.float64 else default_implementation(u.device)
    if name == "cpu":
        return cpu_scan
    if name == "reference":
        return _reference_scan
    if name == "cuda":
        from model.scan_cuda import cuda_scan

        return cuda_scan
    if name == "triton":
        from model.scan_triton import triton_scan

        return triton_scan
    raise ValueError(f"unknown implementation {name!r}; choose from {', '.join(('auto', *IMPLEMENTATIONS))}")


def default_implementation(device: torch.device | str) -> str:
    """The implementation that "auto" means on a device."""
    if torch.device(device).type == "cpu":
        return "cpu"
    return "cuda" if _HAS_MAMBA_SSM else "triton"


def reads_steps_together(device: torch.device) -> bool:
    """Whether the device's scan is fastest with steps side by side in memory, rather than channels."""
    return default_implementation(device) == "cuda"


def _check_shapes(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    if u.ndim != 3 or A.ndim != 2:
        raise ValueError(
            f"selective_scan: u must be (Bsz, D, L) and A (D, N), got {tuple(u.shape)} and {tuple(A.shape)}"
        )
    batch, width, length = u.shape
    states = A.shape[1]
    expected = {
        "delta": (delta, (batch, width, length)),
        "A": (A, (width, states)),
        "B": (B, (batch, states, length)),
        "C": (C, (batch, states, length)),
        "D": (D, (width,)),
        "z": (z, (batch, width, length)),
        "delta_bias": (delta_bias, (width,)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"selective_scan: {name} has shape {tuple(tensor.shape)}, expected {shape}")


def _reference_scan(
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
    """The formula, step by step, in torch; autograd differentiates it."""
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    x, step, a, b, c = (tensor.to(dtype) for tensor in (u, delta, A, B, C))
    if delta_bias is not None:
        step = step + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        step = functional.softplus(step)
    h = x.new_zeros(x.shape[0], *A.shape)  # (Bsz, D, N)
    y: list[Tensor] = [h[..., 0]] * x.shape[-1]
    times = range(x.shape[-1])
    for t in reversed(times) if reverse else times:
        h = torch.exp(step[:, :, t, None] * a) * h + (step[:, :, t] * x[:, :, t])[..., None] * b[:, None, :, t]
        y[t] = (h * c[:, None, :, t]).sum(-1)
    out = torch.stack(y, dim=-1) if y else torch.zeros_like(x)  # (Bsz, D, L)
    if D is not None:
        out = out + D.to(dtype)[:, None] * x
    if z is not None:
        out = out * functional.silu(z.to(dtype))
    return out.to(u.dtype)
