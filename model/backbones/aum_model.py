"""AuM, the Audio Mamba of arXiv 2406.03344: patches, a class token in their middle, and bidirectional Mamba layers.

Follows kaistmm/Audio-Mamba-AuM:src/models/mamba_models.py (BSD-3-Clause); parameter names are upstream's.

    log-mel (B, T, F) → patches, low band first → [first half | class token | second half] + positions
      → depth x (r = r + h;  h = mixer(rms_norm(r))) → rms_norm(r + h) at the class token → head → logits (B, C)
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.add_norm import add_rms_norm
from model.backbones.mamba import MambaMixer, Variant, scale_output_projections
from model.patches import Pair, patch_grid, resize_patch_kernel, resize_positions
from model.stem import Stem, make_patch_embed


@dataclass(frozen=True)
class AuMConfig:
    """Sizes of one AuM. `variant` none, v1, v2 is the paper's Fo-Fo, Fo-Bi, Bi-Bi; patches and strides are square."""

    classes: int
    mels: int = 128
    frames: int = 1024
    patch: int = 16
    stride: int = 16
    width: int = 192
    depth: int = 24
    variant: Variant = "v1"
    state_size: int = 16
    conv_width: int = 4
    expand: int = 2
    class_token: Literal["start", "middle", "end"] = "middle"
    stem: Stem = "patch"

    @property
    def grid(self) -> Pair:
        """Patches as (rows, columns)."""
        return patch_grid(self.mels, self.frames, (self.patch, self.patch), (self.stride, self.stride))


class AuM(nn.Module):
    """Normalised log-mel (B, T, F) → logits (B, C)."""

    def __init__(self, config: AuMConfig) -> None:
        super().__init__()
        self.config = config
        rows, columns = config.grid
        patch, stride = (config.patch, config.patch), (config.stride, config.stride)
        self.patch_embed = make_patch_embed(config.stem, config.width, patch, stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = _Positions(1 + rows * columns, config.width)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.depth))
        self.norm_f = nn.RMSNorm(config.width, eps=1e-5)
        self.head = nn.Linear(config.width, config.classes)
        self._initialise()

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        kernel = self.patch_embed.proj
        nn.init.trunc_normal_(kernel.weight, std=kernel.weight[0].numel() ** -0.5)  # LeCun
        if kernel.bias is not None:
            nn.init.zeros_(kernel.bias)
        scale_output_projections([layer.mixer for layer in self.layers])  # type: ignore[misc]

    def forward(self, log_mel: Tensor, patch: int | None = None, stride: int | None = None) -> Tensor:
        """Logits (B, C) of normalised log-mel (B, T, F); `patch` and `stride` as in `embed`."""
        return self.head(self.embed(log_mel, patch, stride).to(self.head.weight.dtype)).float()

    def embed(self, log_mel: Tensor, patch: int | None = None, stride: int | None = None) -> Tensor:
        """The class token's features (B, D) before the head, float32.

        `patch` and `stride` resample the patch kernel and the positions for this call (flexible patches, SPEC 2.5).

        Raises: ValueError if log_mel is not (B, frames, mels) of this network's config.
        """
        expected = (self.config.frames, self.config.mels)
        if log_mel.ndim != 3 or tuple(log_mel.shape[1:]) != expected:
            raise ValueError(f"log-mel must be (B, {expected[0]}, {expected[1]}), got {tuple(log_mel.shape)}")
        tokens, positions = self._tokens(log_mel, patch, stride)
        place = {"start": 0, "middle": tokens.shape[1] // 2, "end": tokens.shape[1]}[self.config.class_token]
        class_token = (self.cls_token + positions[:, :1]).expand(tokens.shape[0], -1, -1)
        tokens = tokens + positions[:, 1:]
        h = torch.cat([tokens[:, :place], class_token, tokens[:, place:]], dim=1)  # (B, N + 1, D)
        residual = torch.zeros_like(h, dtype=torch.float32)
        for layer in self.layers:
            h, residual = layer(h, residual)
        return self.norm_f(residual[:, place] + h[:, place])

    def _tokens(self, log_mel: Tensor, patch: int | None, stride: int | None) -> tuple[Tensor, Tensor]:
        """Patch tokens (B, N, D) without positions, and the positional table (1, 1 + N, D) for their grid."""
        config, table = self.config, self.pos_embed.pos_embed
        if patch is None and stride is None:
            return self.patch_embed(log_mel), table
        if config.stem == "conv":
            raise ValueError("a convolutional stem has no kernel to resample: patch and stride cannot be chosen")
        patch, stride = patch or config.patch, stride or config.stride
        kernel = resize_patch_kernel(self.patch_embed.proj.weight, (patch, patch))
        image = log_mel.to(kernel.dtype).transpose(1, 2)[:, None]  # (B, 1, F, T)
        tokens = functional.conv2d(image, kernel, self.patch_embed.proj.bias, stride).flatten(2).transpose(1, 2)
        grid = patch_grid(config.mels, config.frames, (patch, patch), (stride, stride))
        return tokens, resize_table(table, config.grid, grid)


class _Positions(nn.Module):
    """Upstream's wrapper of the table (1, 1 + N, D): row 0 belongs to the class token, wherever that stands."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)


class _Layer(nn.Module):
    """Add, RMSNorm, mixer; the residual stays float32."""

    def __init__(self, config: AuMConfig) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(config.width, eps=1e-5)
        self.mixer = MambaMixer(config.width, config.expand, config.state_size, config.conv_width, config.variant)

    def forward(self, h: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        normed, residual = add_rms_norm(h, residual, self.norm, self.mixer.in_proj.weight.dtype)
        return self.mixer(normed), residual


def resize_table(table: Tensor, source_grid: Pair, target_grid: Pair) -> Tensor:
    """Resample a positional table (1, 1 + N, D) to another grid, with antialias; the class token's row is copied."""
    patches = resize_positions(table[:, 1:], source_grid, target_grid, antialias=True)
    return torch.cat([table[:, :1], patches], dim=1)


def resize_state(state: dict[str, Tensor], source: AuMConfig, target: AuMConfig) -> dict[str, Tensor]:
    """An AuM state dict made for `source`'s spectrogram and patches, as `target` needs it; the head is kept."""
    resized = dict(state)
    resized["pos_embed.pos_embed"] = resize_table(state["pos_embed.pos_embed"], source.grid, target.grid)
    if source.patch != target.patch:
        kernel = state["patch_embed.proj.weight"]
        resized["patch_embed.proj.weight"] = resize_patch_kernel(kernel, (target.patch, target.patch))
    return resized
