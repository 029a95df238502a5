"""SSAM, the Self-Supervised Audio Mamba: masked patches of log-mel are reconstructed, then features are read off.

Source: arXiv 2406.02178, SarthakYadav/audio-mamba-official:src/models/mamba_ssast.py (MIT); parameter names are
upstream's. With `mixer="attention"` it is the same repository's SSAST baseline, whose blocks carry timm's names here.

The encoder sees chunks of 2 seconds (200 frames). A longer clip is cut into chunks, each encoded by itself:

    log-mel   |---- 200 ----|---- 200 ----|-- 31 --|00000|        padded with zeros
    rows      |---- 50 -----|---- 50 -----|-- 8 ---|              one per 4 frames, those of the padding removed
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.backbones.mamba import MambaMixer, scale_output_projections
from model.backbones.transformer import Block, make_head
from model.patches import Pair, check_log_mel, patch_grid, sine_cosine_positions
from model.stem import ConvolutionalStem, Stem, make_patch_embed

SIZES: dict[str, dict[str, int]] = {
    "tiny": {"width": 192, "depth": 12},
    "small": {"width": 384, "depth": 12},
    "base": {"width": 768, "depth": 12},
}

MASK_RATIO = 0.5
"""Share of masked patches in pre-training (upstream's configuration lists 0.8 first and then overrides it)."""


@dataclass(frozen=True)
class SSAMConfig:
    """Everything that shapes an SSAM; `frames` is the length of one chunk.

    `classes` is 0 for a network without a classifier, `pretraining` keeps the mask token and the reconstruction head;
    `heads` matters to the attention baseline only.
    """

    classes: int = 527
    mels: int = 80
    frames: int = 200
    width: int = 768
    depth: int = 12
    mixer: Literal["mamba", "attention"] = "mamba"
    expand: int = 3
    state_size: int = 24
    conv_width: int = 4
    heads: int = 12
    mlp_ratio: float = 4.0
    patch_mels: int = 16
    patch_frames: int = 4
    pretraining: bool = False
    epsilon: float = 1e-6
    stem: Stem = "patch"

    @property
    def patch(self) -> Pair:
        """Patch size and stride (mels, frames)."""
        return self.patch_mels, self.patch_frames

    @property
    def grid(self) -> Pair:
        """Patches of a chunk as (rows, columns): 5 bands, 50 time steps."""
        return patch_grid(self.mels, self.frames, self.patch, self.patch)

    @property
    def feature_width(self) -> int:
        """Width of a feature row: every band's token, side by side."""
        return self.grid[0] * self.width


class MambaBlock(nn.Module):
    """LayerNorm and a one-way Mamba mixer, added to the residual stream."""

    def __init__(self, config: SSAMConfig) -> None:
        """Make the block."""
        super().__init__()
        self.norm = nn.LayerNorm(config.width, eps=config.epsilon)
        self.mixer = MambaMixer(config.width, config.expand, config.state_size, config.conv_width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Transform tokens (B, N, D)."""
        return tokens + self.mixer(self.norm(tokens).to(self.mixer.in_proj.weight.dtype))


class SSAM(nn.Module):
    """Log-mel (B, T, F) to logits (B, C), to features, or to reconstructed patches."""

    pos_embed: Tensor

    def __init__(self, config: SSAMConfig) -> None:
        """Make the network with upstream's initial values."""
        super().__init__()
        self.config = config
        width = config.width
        self.patch_embed = make_patch_embed(config.stem, width, config.patch, config.patch, time_major=True)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        positions = sine_cosine_positions(width, config.grid)
        self.register_buffer("pos_embed", torch.cat([positions.new_zeros(1, 1, width), positions], dim=1))
        self.blocks = nn.ModuleList(_make_block(config) for _ in range(config.depth))
        self.encoder_norm = nn.LayerNorm(width, eps=config.epsilon)
        self.head = make_head(config.feature_width, config.classes, config.epsilon)
        if config.pretraining:
            self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
            pixels = config.patch_mels * config.patch_frames
            self.pred = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, pixels))
        self._initialise()

    def encode(self, log_mel: Tensor, mask: Tensor | None = None) -> Tensor:
        """Turn one chunk of log-mel (B, T, F) into t-major patch tokens after the final norm (B, N, D).

        Where `mask` (B, N) is set, the mask token replaces a patch and its position.

        Raises:
            ValueError: the log-mel is not of the config's frames and mels.
        """
        check_log_mel(log_mel, self.config.frames, self.config.mels)
        if mask is not None and isinstance(self.patch_embed, ConvolutionalStem):
            log_mel = self.patch_embed.hide(log_mel, mask)
        tokens = self.patch_embed(log_mel) + self.pos_embed[:, 1:]
        if mask is not None:
            tokens = torch.where(mask.bool().unsqueeze(-1), self.mask_token, tokens)
        first = (self.cls_token + self.pos_embed[:, :1]).expand(tokens.shape[0], -1, -1)
        tokens = torch.cat([first, tokens], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.encoder_norm(tokens)[:, 1:]

    def features(self, log_mel: Tensor, order: Literal["time", "released"] = "time") -> Tensor:
        """Turn log-mel of any length (B, T, F) into feature rows (B, T', bands * D), one per patch length of frames.

        In "time" order a row holds the bands of one time step. The authors' released extractor reads the t-major tokens
        as if they were f-major, so its row j holds time steps from all over the chunk; "released" does the same.

        Raises:
            ValueError: the log-mel does not have the config's mels.
        """
        check_log_mel(log_mel, None, self.config.mels)
        frames, (bands, steps) = self.config.frames, self.config.grid
        padding = -log_mel.shape[1] % frames
        chunks = functional.pad(log_mel, (0, 0, 0, padding)).unflatten(1, (-1, frames))  # (B, chunks, frames, F)
        tokens = self.encode(chunks.flatten(0, 1))  # (B * chunks, steps * bands, D)
        if order == "released":
            tokens = tokens.unflatten(1, (bands, steps)).transpose(1, 2)
        rows = tokens.reshape(-1, chunks.shape[1] * steps, self.config.feature_width)
        return rows[:, : rows.shape[1] - steps * padding // frames]

    def embed(self, log_mel: Tensor) -> Tensor:
        """Turn log-mel (B, T, F) into the features (B, bands * D) that the head receives: the mean of each band."""
        return self.features(log_mel).mean(dim=1)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Turn normalised log-mel (B, T, F) into logits (B, C)."""
        return self.head(self.embed(log_mel))

    def reconstruct(self, log_mel: Tensor, mask: Tensor) -> Tensor:
        """Predict the pixels of every patch (B, N, P) of one chunk (B, T, F) from those not set in `mask` (B, N)."""
        return self.pred(self.encode(log_mel, mask))

    def _initialise(self) -> None:
        tokens = [self.cls_token, self.mask_token] if self.config.pretraining else [self.cls_token]
        for parameter in tokens:
            nn.init.normal_(parameter, std=0.02)
        projection = self.patch_embed.proj
        nn.init.xavier_uniform_(projection.weight)
        if projection.bias is not None:
            nn.init.zeros_(projection.bias)
        if self.config.mixer == "mamba":
            scale_output_projections([block.mixer for block in self.blocks])  # type: ignore[misc]
        else:
            _initialise_like_xavier(self.blocks)


def scene_embedding(rows: Tensor) -> Tensor:
    """Average feature rows (B, T', bands * D) to one vector per clip, as the HEAR benchmark asks."""
    return rows.mean(dim=1)


def row_timestamps(rows: int, duration_seconds: float) -> Tensor:
    """Give each of `rows` feature rows its start, in milliseconds, as the HEAR benchmark asks: (rows,)."""
    starts = torch.arange(rows, dtype=torch.float64) * (duration_seconds / rows * 1000)
    return starts.to(torch.float32)


def draw_mask(batch: int, tokens: int, ratio: float = MASK_RATIO, generator: torch.Generator | None = None) -> Tensor:
    """Draw which patches to mask (batch, tokens), bool: all but floor((1 - ratio) * tokens), evenly."""
    kept = int(tokens * (1 - ratio))
    order = torch.rand(batch, tokens, generator=generator).argsort(dim=1).argsort(dim=1)
    return order >= kept


def reconstruction_loss(
    predictions: Tensor, targets: Tensor, mask: Tensor | None = None, normalise: bool = False
) -> Tensor:
    """Mean squared error between pixels (B, N, P), over all patches, or over those set in `mask` (B, N).

    Upstream trains on all patches (its model hands no mask to the loss). `normalise` standardises each target patch.
    """
    if normalise:
        variance, mean = torch.var_mean(targets, dim=-1, keepdim=True)
        targets = (targets - mean) / (variance + 1e-6).sqrt()
    error = (predictions - targets).square().mean(dim=-1)
    if mask is None:
        return error.mean()
    return (error * mask).sum() / mask.sum()


def fit_state(state: Mapping[str, Tensor], source: SSAMConfig, target: SSAMConfig) -> dict[str, Tensor]:
    """Carry the weights of one SSAM to another chunk length, or from pre-training to a classifier.

    What `target` has no use for (mask token, reconstruction head, another set of classes) is left out; positions for
    another grid are left out too, since a new network has them anyway.

    Raises:
        ValueError: the two differ in size, mixer or the shape of their patches.
    """
    if (source.width, source.depth, source.mixer, source.patch, source.stem) != (
        target.width,
        target.depth,
        target.mixer,
        target.patch,
        target.stem,
    ):
        raise ValueError(f"an SSAM of another size cannot be fitted: have {source}, want {target}")
    dropped: tuple[str, ...] = () if target.pretraining else ("mask_token", "pred.")
    if (source.classes, source.feature_width) != (target.classes, target.feature_width):
        dropped += ("head.",)
    if source.grid != target.grid:
        dropped += ("pos_embed",)
    return {name: tensor for name, tensor in state.items() if not name.startswith(dropped)}


def _make_block(config: SSAMConfig) -> nn.Module:
    if config.mixer == "attention":
        return Block(config.width, config.heads, int(config.width * config.mlp_ratio), config.epsilon)
    return MambaBlock(config)


def _initialise_like_xavier(blocks: nn.Module) -> None:
    for module in blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
