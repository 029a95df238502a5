"""AST, the Audio Spectrogram Transformer: a distilled DeiT over overlapping patches of log-mel.

Source: arXiv 2104.01778, YuanGongND/ast:src/models/ast_models.py (BSD-3-Clause). Parameter names are upstream's without
their `v.`; `mlp_head` is called `head`. Hugging Face's conversion is the same network with `epsilon` 1e-12 throughout.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.backbones.transformer import Block, initialise_like_deit, make_head
from model.patches import Pair, check_log_mel, cut_or_resize_positions, patch_grid
from model.stem import Stem, make_patch_embed

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "base": {"width": 768, "depth": 12, "heads": 12},
}


@dataclass(frozen=True)
class ASTConfig:
    """Everything that shapes an AST; `frames` and `mels` are those of the log-mel it sees."""

    classes: int = 527
    mels: int = 128
    frames: int = 1024
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    patch_mels: int = 16
    patch_frames: int = 16
    stride_mels: int = 10
    stride_frames: int = 10
    qkv_bias: bool = True
    distilled: bool = True
    epsilon: float = 1e-6
    head_epsilon: float = 1e-5
    stem: Stem = "patch"

    @property
    def patch(self) -> Pair:
        """Patch size (mels, frames)."""
        return self.patch_mels, self.patch_frames

    @property
    def stride(self) -> Pair:
        """Distance between patches (mels, frames)."""
        return self.stride_mels, self.stride_frames

    @property
    def grid(self) -> Pair:
        """Patches as (rows, columns): 12 x 101 for AudioSet."""
        return patch_grid(self.mels, self.frames, self.patch, self.stride)

    @property
    def class_tokens(self) -> int:
        """Tokens before the patches: class, and distillation where there is one."""
        return 2 if self.distilled else 1


class AST(nn.Module):
    """Log-mel (B, T, F) to logits (B, C)."""

    def __init__(self, config: ASTConfig) -> None:
        """Make the network with the paper's initial values."""
        super().__init__()
        self.config = config
        width, grid = config.width, config.grid
        self.patch_embed = make_patch_embed(config.stem, width, config.patch, config.stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.class_tokens + grid[0] * grid[1], width))
        hidden = int(width * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            Block(width, config.heads, hidden, config.epsilon, config.qkv_bias) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.epsilon)
        self.head = make_head(width, config.classes, config.head_epsilon)
        self._initialise()

    def encode(self, log_mel: Tensor, keep: int | None = None) -> Tensor:
        """Turn log-mel (B, T, F) into tokens after the final norm (B, N, D): class tokens, then f-major patches.

        With `keep`, only the first `keep` tokens are finished, which saves most of the last block.

        Raises:
            ValueError: the log-mel is not of the config's frames and mels.
        """
        check_log_mel(log_mel, self.config.frames, self.config.mels)
        patches = self.patch_embed(log_mel)
        tokens = torch.cat([self.class_tokens().expand(patches.shape[0], -1, -1), patches], dim=1) + self.pos_embed
        for block in self.blocks[:-1]:
            tokens = block(tokens)
        return self.norm(self.blocks[-1](tokens, keep))

    def embed(self, log_mel: Tensor) -> Tensor:
        """Turn log-mel (B, T, F) into the features (B, D) that the head receives: the mean of the class tokens."""
        return self.encode(log_mel, keep=self.config.class_tokens).mean(dim=1)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Turn normalised log-mel (B, T, F) into logits (B, C)."""
        return self.head(self.embed(log_mel))

    def class_tokens(self) -> Tensor:
        """Give the learned tokens before the patches, (1, 1 or 2, D)."""
        return torch.cat([self.cls_token, self.dist_token], dim=1) if self.config.distilled else self.cls_token

    def _initialise(self) -> None:
        initialise_like_deit(self.blocks)
        tokens = [self.cls_token, self.dist_token] if self.config.distilled else [self.cls_token]
        for parameter in [*tokens, self.pos_embed]:
            nn.init.trunc_normal_(parameter, std=0.02)


def fit_state(state: Mapping[str, Tensor], source: ASTConfig, target: ASTConfig) -> dict[str, Tensor]:
    """Carry the weights of one AST to another grid: the positional table is cut or resized, the kernel is kept.

    Overlap may change with the grid (upstream's loader keeps stride 10 whatever is asked; ours does what is asked).
    A head for another number of classes is left out.

    Raises:
        ValueError: the two differ in more than grid and classes.
    """
    if (source.width, source.depth, source.patch, source.distilled, source.stem) != (
        target.width,
        target.depth,
        target.patch,
        target.distilled,
        target.stem,
    ):
        raise ValueError(f"an AST of another size cannot be fitted: have {source}, want {target}")
    fitted = dict(state)
    fitted["pos_embed"] = fit_positions(state["pos_embed"], source.class_tokens, source.grid, target.grid)
    if source.classes != target.classes:
        fitted = {name: tensor for name, tensor in fitted.items() if not name.startswith("head.")}
    return fitted


def fit_positions(table: Tensor, class_tokens: int, source_grid: Pair, target_grid: Pair) -> Tensor:
    """Fit a positional table (1, class tokens + N, D) to another grid, copying the class tokens' rows."""
    patches = cut_or_resize_positions(table[:, class_tokens:], source_grid, target_grid)
    return torch.cat([table[:, :class_tokens], patches], dim=1)
