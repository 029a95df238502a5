"""Forms of attention for export, one for each target.

Traced as it is, attention becomes a dozen operators with two (N, N) matrices per head in memory. ONNX Runtime has one
operator for it on CPUs and GPUs, com.microsoft.MultiHeadAttention, that keeps them in cache. OpenVINO and TensorRT fuse
the explicit form by themselves: OpenVINO takes transposes in where queries, keys and values are three products; for
TensorRT the softmax is written in float32, for a half-precision one loses digits.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.backbones.transformer import Attention


class OneOperatorAttention(nn.Module):
    """ONNX Runtime's MultiHeadAttention around the projections of an `Attention`."""

    def __init__(self, attention: Attention) -> None:
        """Take over the projections."""
        super().__init__()
        self.heads, self.qkv, self.proj = attention.heads, attention.qkv, attention.proj

    def forward(self, tokens: Tensor, keep: int | None = None) -> Tensor:
        """Mix tokens (B, N, D) as `Attention` does."""
        queries, keys, values = self.qkv(tokens.to(self.qkv.weight.dtype)).chunk(3, dim=-1)  # each (B, N, D)
        queries = queries[:, :keep]
        mixed = torch.onnx.ops.symbolic(
            "com.microsoft::MultiHeadAttention",
            (queries, keys, values),
            attrs={"num_heads": self.heads},
            dtype=queries.dtype,
            shape=queries.shape,
            version=1,
        )
        return self.proj(mixed)


class SplitAttention(nn.Module):
    """Attention as OpenVINO fuses it: three projections, and the scale of the scores inside that of the queries.

    Where only a few tokens ask (`keep`), keys and values of all the others are never made: the queries go through the
    keys' weights instead, and the mix of tokens through the values' weights. The keys' bias adds the same to all scores
    of a query, so the softmax does not see it.
    """

    keys_by_head: Tensor
    values_by_head: Tensor

    def __init__(self, attention: Attention) -> None:
        """Take over the projections."""
        super().__init__()
        self.heads, self.proj = attention.heads, attention.proj
        self.queries, self.keys, self.values = _split(attention.qkv)
        scale = (self.proj.in_features // self.heads) ** -0.5
        for parameter in self.queries.parameters():
            parameter.mul_(scale)
        self.register_buffer("keys_by_head", self.keys.weight.unflatten(0, (self.heads, -1)), persistent=False)
        by_head = self.values.weight.unflatten(0, (self.heads, -1)).transpose(1, 2)  # (heads, D, D / heads)
        self.register_buffer("values_by_head", by_head, persistent=False)

    def forward(self, tokens: Tensor, keep: int | None = None) -> Tensor:
        """Mix tokens (B, N, D) as `Attention` does."""
        mixed = self._mix(tokens) if keep is None else self._mix_for_few(tokens, keep)  # (B, heads, N, D / heads)
        return self.proj(mixed.transpose(1, 2).flatten(2))

    def _mix(self, tokens: Tensor) -> Tensor:
        queries, keys, values = (self._by_head(each(tokens)) for each in (self.queries, self.keys, self.values))
        return (queries @ keys.transpose(-1, -2)).softmax(dim=-1) @ values

    def _mix_for_few(self, tokens: Tensor, keep: int) -> Tensor:
        asked = self._by_head(self.queries(tokens[:, :keep])) @ self.keys_by_head  # (B, heads, keep, D)
        weights = (asked.flatten(1, 2) @ tokens.transpose(1, 2)).softmax(dim=-1)  # (B, heads * keep, N)
        mixed = (weights @ tokens).unflatten(1, (self.heads, keep)) @ self.values_by_head
        return mixed if self.values.bias is None else mixed + self.values.bias.unflatten(0, (self.heads, 1, -1))

    def _by_head(self, projected: Tensor) -> Tensor:
        """(B, N, D) -> (B, heads, N, D / heads)."""
        return projected.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class SteadyAttention(nn.Module):
    """Attention whose softmax is computed in float32, whatever the products are in."""

    def __init__(self, attention: Attention) -> None:
        """Take over the projections."""
        super().__init__()
        self.heads, self.qkv, self.proj = attention.heads, attention.qkv, attention.proj

    def forward(self, tokens: Tensor, keep: int | None = None) -> Tensor:
        """Mix tokens (B, N, D) as `Attention` does."""
        qkv = self.qkv(tokens.to(self.qkv.weight.dtype)).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, D / heads)
        scale = queries.shape[-1] ** -0.5
        closeness = (queries[:, :, :keep] * scale) @ keys.transpose(-1, -2)
        weights = closeness.float().softmax(dim=-1).to(values.dtype)
        return self.proj((weights @ values).transpose(1, 2).flatten(2))


def with_attention(network: nn.Module, form: Callable[[Attention], nn.Module]) -> nn.Module:
    """A copy of the network, sharing its weights, in which every `Attention` has another form."""
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    changed = copy.deepcopy(network, dict(shared))
    for name, module in list(changed.named_modules()):
        if isinstance(module, Attention):
            changed.set_submodule(name, form(module))
    return changed


def _split(qkv: nn.Linear) -> list[nn.Linear]:
    """The layer's three equal parts, as layers of their own."""
    parts = []
    for rows in torch.arange(qkv.out_features).chunk(3):
        part = nn.Linear(qkv.in_features, len(rows), bias=qkv.bias is not None)
        part.load_state_dict({name: parameter[rows] for name, parameter in qkv.state_dict().items()})
        parts.append(part.requires_grad_(False))
    return parts
