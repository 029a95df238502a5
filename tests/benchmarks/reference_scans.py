"""Other people's ways to scan in torch, for comparison: a tidy loop over time, and mamba_ssm's reference."""

import torch
from torch import Tensor
from torch.nn import functional


def loop_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    delta_softplus: bool = True,
    reverse: bool = False,
) -> Tensor:
    """One step of all channels and states per turn, everything that can be done outside the loop done outside."""
    step = functional.softplus(delta + delta_bias[:, None]).permute(2, 0, 1).contiguous()  # (L, Bsz, D)
    scaled = step * u.permute(2, 0, 1)
    B_rows, C_rows = B.permute(2, 0, 1).contiguous(), C.permute(2, 0, 1).contiguous()  # (L, Bsz, N)
    h = u.new_zeros(u.shape[0], *A.shape)  # (Bsz, D, N)
    y = []
    for t in range(u.shape[2]):
        h = torch.exp(step[t].unsqueeze(-1) * A) * h + scaled[t].unsqueeze(-1) * B_rows[t].unsqueeze(1)
        y.append(torch.matmul(h, C_rows[t].unsqueeze(-1)).squeeze(-1))
    return (torch.stack(y, dim=2) + D[:, None] * u) * functional.silu(z)


def mamba_reference_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    delta_softplus: bool = True,
    reverse: bool = False,
) -> Tensor:
    """What mamba_ssm computes without a GPU: decays and inputs of all steps (Bsz, D, L, N), then a loop of einsums.

    The operations are those of its selective_scan_ref; time is flipped for a reversed scan, as AuM's code does.
    """
    if reverse:
        u, delta, B, C, z = (tensor.flip(2) for tensor in (u, delta, B, C, z))
    step = functional.softplus(delta + delta_bias[:, None])
    decays = torch.exp(torch.einsum("bdl,dn->bdln", step, A))
    inputs = torch.einsum("bdl,bnl,bdl->bdln", step, B, u)
    h = u.new_zeros(u.shape[0], *A.shape)
    y = []
    for t in range(u.shape[2]):
        h = decays[:, :, t] * h + inputs[:, :, t]
        y.append(torch.einsum("bdn,bn->bd", h, C[:, :, t]))
    out = (torch.stack(y, dim=2) + D[:, None] * u) * functional.silu(z)
    return out.flip(2) if reverse else out
