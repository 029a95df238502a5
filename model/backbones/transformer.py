"""Transformer blocks and classifier heads shared by the attention backbones, under timm's parameter names.

Source: the pre-norm blocks of DeiT (arXiv 2012.12877) as huggingface/pytorch-image-models has them (Apache-2.0).

Matrix products run in the dtype of their own weights, so the linear layers of the blocks can be lowered to bfloat16
while the residual stream and the norms stay in float32.
"""

from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int, qkv_bias: bool = True) -> None:
        """Make the projections; each head takes width / heads columns."""
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} must be a multiple of the number of heads, {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, keep: int | None = None) -> Tensor:
        """Mix tokens (B, N, D); with `keep`, answer only for the first `keep` tokens."""
        qkv = self.qkv(tokens.to(self.qkv.weight.dtype)).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, N, D / heads)
        mixed = functional.scaled_dot_product_attention(queries[:, :, :keep], keys, values)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers around an exact (erf) GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        """Make the layers width -> hidden -> width."""
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform each of the tokens (B, N, D) by itself."""
        return self.fc2(functional.gelu(self.fc1(tokens.to(self.fc1.weight.dtype))))


class Block(nn.Module):
    """Pre-norm transformer block: attention, then the MLP, each added to the residual stream."""

    def __init__(self, width: int, heads: int, mlp_width: int, epsilon: float, qkv_bias: bool = True) -> None:
        """Make the two halves; `epsilon` is that of both LayerNorms."""
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=epsilon)
        self.attn = Attention(width, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=epsilon)
        self.mlp = Mlp(width, mlp_width)

    def forward(self, tokens: Tensor, keep: int | None = None) -> Tensor:
        """Transform tokens (B, N, D); a last block that feeds a few tokens to a head can `keep` just those."""
        tokens = tokens[:, :keep] + self.attn(self.norm1(tokens), keep)
        return tokens + self.mlp(self.norm2(tokens))


class Head(nn.Sequential):
    """AST's classifier: LayerNorm and a linear layer, whose logits are float32 whatever the layer's dtype."""

    def __init__(self, width: int, classes: int, epsilon: float) -> None:
        """Make the layers, `0` and `1` by name."""
        super().__init__(nn.LayerNorm(width, eps=epsilon), nn.Linear(width, classes))

    def forward(self, features: Tensor) -> Tensor:
        """Turn features (B, D) into logits (B, C)."""
        norm, linear = self
        return linear(norm(features).to(linear.weight.dtype)).float()


class NoClasses(nn.Module):
    """The head of a network that only gives features: logits (B, 0)."""

    def forward(self, features: Tensor) -> Tensor:
        """Answer features (B, D) with no logits at all."""
        return features[:, :0]


def make_head(width: int, classes: int, epsilon: float) -> nn.Module:
    """Make a classifier head; with 0 classes, one without logits."""
    return Head(width, classes, epsilon) if classes else NoClasses()


def initialise_like_deit(blocks: nn.Module) -> None:
    """Draw linear weights from a truncated normal of std 0.02 and clear their biases, as DeiT does."""
    for module in blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
