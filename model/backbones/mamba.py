"""The Mamba mixer in its one-directional and two bidirectional forms, shared by AuM and SSAM.

Follows arXiv 2312.00752 and the modified `mamba_ssm` 1.1.3 of kaistmm/Audio-Mamba-AuM (BSD-3-Clause), whose parameter
names it keeps. Linear layers run in their weights' dtype, which the activations follow; convolution, scan and gate
compute in float32.

    none (Fo-Fo)   scan forwards
    v1   (Fo-Bi)   + scan backwards over the same inputs, step sizes, B, C and D; only A differs; the two are added
    v2   (Bi-Bi)   + a backward branch with its own convolution, projections, A and D; the two are added (and halved)
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.causal_conv import causal_conv
from model.remembered import remembered
from model.selective_scan import bidirectional_scan, reads_steps_together, selective_scan

Variant = Literal["none", "v1", "v2"]


class MambaMixer(nn.Module):
    """Tokens (B, L, D) → tokens (B, L, D), mixed along L by `state_size` states per inner channel."""

    def __init__(
        self,
        width: int,
        expand: int = 2,
        state_size: int = 16,
        conv_width: int = 4,
        variant: Variant = "none",
        halve_v2: bool = True,
    ) -> None:
        """Make the parameters with Mamba's initial values: A = -1..-N, D = 1, steps log-uniform in [1e-3, 1e-1]."""
        super().__init__()
        inner, rank = expand * width, math.ceil(width / 16)
        self.variant, self.halve_v2 = variant, halve_v2
        self.rank, self.state_size = rank, state_size
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        self.out_proj = nn.Linear(inner, width, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, conv_width, groups=inner, padding=conv_width - 1)
        self.x_proj = nn.Linear(inner, rank + 2 * state_size, bias=False)
        self.dt_proj = StepProjection(rank, inner)
        self.A_log = _log_decays(inner, state_size)
        self.D = nn.Parameter(torch.ones(inner))
        if variant in ("v1", "v2"):
            self.A_b_log = _log_decays(inner, state_size)
        if variant == "v2":
            self.conv1d_b = nn.Conv1d(inner, inner, conv_width, groups=inner, padding=conv_width - 1)
            self.x_proj_b = nn.Linear(inner, rank + 2 * state_size, bias=False)
            self.dt_proj_b = StepProjection(rank, inner)
            self.D_b = nn.Parameter(torch.ones(inner))

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens (B, L, D) along L."""
        # Two products instead of one: each result lies as the kernels below read it, so they need no copies.
        signal, gate = (_project(x, weight) for weight in self.in_proj.weight.chunk(2))  # each (B, E, L)
        u, step, B, C = self._scan_inputs(signal, self.conv1d, self.x_proj, self.dt_proj, reverse=False)
        A, bias = _decays(self.A_log), self.dt_proj.bias.float()
        if self.variant == "v1":
            A_reverse = _decays(self.A_b_log)
            y = bidirectional_scan(u, step, A, A_reverse, B, C, self.D.float(), gate, bias, delta_softplus=True)
        else:
            y = selective_scan(u, step, A, B, C, self.D.float(), gate, bias, delta_softplus=True)
        if self.variant == "v2":
            y = y + self._backward_branch(signal, gate)
            y = y / 2 if self.halve_v2 else y
        return self.out_proj(y.transpose(1, 2).to(self.out_proj.weight.dtype))

    def _backward_branch(self, signal: Tensor, gate: Tensor) -> Tensor:
        """The second direction of v2, with its own parameters: signal and gate (B, E, L) → (B, E, L)."""
        u, step, B, C = self._scan_inputs(signal, self.conv1d_b, self.x_proj_b, self.dt_proj_b, reverse=True)
        A, bias = _decays(self.A_b_log), self.dt_proj_b.bias.float()
        return selective_scan(u, step, A, B, C, self.D_b.float(), gate, bias, delta_softplus=True, reverse=True)

    def _scan_inputs(
        self, signal: Tensor, conv: nn.Conv1d, x_proj: nn.Linear, dt_proj: nn.Linear, reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Signal (B, E, L) → u and raw step sizes (B, E, L), B and C (B, N, L)."""
        bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(len(conv.weight))
        u = causal_conv(signal, _taps(conv.weight), bias, reverse)
        projected = x_proj(u.transpose(1, 2).to(x_proj.weight.dtype))  # (B, L, R + 2N)
        low_rank, B, C = projected.split([self.rank, self.state_size, self.state_size], dim=-1)
        step = _project(low_rank, dt_proj.weight)  # the scan adds the bias
        return u, step, B.transpose(1, 2), C.transpose(1, 2)


class StepProjection(nn.Linear):
    """The projection from rank R to step sizes, whose bias makes softplus give log-uniform steps in [1e-3, 1e-1]."""

    float32_bias = True
    """The scan adds the bias, in float32 whatever the weight's dtype."""

    def __init__(self, rank: int, inner: int) -> None:
        super().__init__(rank, inner)
        nn.init.uniform_(self.weight, -(rank**-0.5), rank**-0.5)
        # On the CPU whatever the default device: on "meta" this arithmetic would import torch's compiler, which takes
        # a second.
        exponents = torch.rand(inner, device="cpu") * (math.log(1e-1) - math.log(1e-3)) + math.log(1e-3)
        steps = torch.exp(exponents).clamp(min=1e-4)
        with torch.no_grad():
            self.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus


def _project(x: Tensor, weight: Tensor) -> Tensor:
    """Tokens (B, L, D) by a weight (E, D) → (B, E, L), laid out as the scan reads it at no cost to the product."""
    if reads_steps_together(x.device):
        flat = weight @ x.flatten(0, 1).T  # (E, B L)
        return flat.unflatten(1, x.shape[:2]).transpose(0, 1)
    return functional.linear(x, weight).transpose(1, 2)


@remembered
def _decays(A_log: Tensor) -> Tensor:
    return -torch.exp(A_log.float())


@remembered
def _taps(weight: Tensor) -> Tensor:
    """A depthwise convolution's weight (E, 1, K) → (E, K)."""
    return weight.squeeze(1)


def _log_decays(inner: int, state_size: int) -> nn.Parameter:
    """A_log of shape (E, N) with A = -(1, 2, ..., N) in every row (S4D-real)."""
    row = torch.log(torch.arange(1, state_size + 1, dtype=torch.float32, device="cpu"))  # as in StepProjection
    return nn.Parameter(torch.empty(inner, state_size).copy_(row))


def scale_output_projections(mixers: list[MambaMixer]) -> None:
    """Divide each out_proj by the square root of the depth, so that the residual sum keeps its scale at the start."""
    for mixer in mixers:
        nn.init.kaiming_uniform_(mixer.out_proj.weight, a=math.sqrt(5))
        with torch.no_grad():
            mixer.out_proj.weight /= math.sqrt(len(mixers))
