"""Forms of attention for export: one operator for ONNX Runtime, and explicit float32 softmax for half precision.

Traced as it is, attention becomes a dozen operators with two (N, N) matrices per head in memory. ONNX Runtime has one
operator for it on CPUs and GPUs, com.microsoft.MultiHeadAttention, that keeps them in cache. TensorRT fuses the
explicit form by itself; there the softmax is written in float32: a half-precision one loses digits.
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
