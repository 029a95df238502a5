"""The choice of how patches become tokens: by one linear map, as published, or by a convolutional stem of ours.

The stem is that of arXiv 2106.14881 (Xiao et al. 2021, "Early convolutions help transformers see better"): 3x3
convolutions with batch norm, each twice as wide as the last, halve the log-mel until one cell is left per patch:

    64 mels x 512 frames → 32 x 256 x 24 → 16 x 128 x 48 → 8 x 64 x 96 → 4 x 32 x 192 → 1x1 → tokens of width 192
"""

from typing import Literal

import torch
from torch import Tensor, nn

from model.patches import Pair, PatchEmbed, TimeMajorPatchEmbed, cut_pixels

Stem = Literal["patch", "conv"]


class ConvolutionalStem(nn.Module):
    """Log-mel to tokens that see a little of their neighbours, f-major (AST, AuM) or t-major (SSAM)."""

    def __init__(self, width: int, patch: Pair, time_major: bool = False) -> None:
        """Make the layers; `patch` is (mels, frames) and the distance between patches.

        Raises:
            ValueError: a side of the patch is no power of two, or both are one.
        """
        super().__init__()
        if any(side < 1 or side & (side - 1) for side in patch) or max(patch) == 1:
            raise ValueError(f"a convolutional stem needs patches whose sides are powers of two, not {patch}")
        self.time_major = time_major
        self.patch = patch[::-1] if time_major else patch  # rows and columns of the image
        halvings = [side.bit_length() - 1 for side in self.patch]
        layers: list[nn.Module] = []
        for step in range(max(halvings)):
            wide = width >> (max(halvings) - 1 - step)
            narrow = wide // 2 if step else 1
            stride = (1 + (step < halvings[0]), 1 + (step < halvings[1]))
            layers += [nn.Conv2d(narrow, wide, 3, stride, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.proj = nn.Conv2d(width, width, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, log_mel: Tensor) -> Tensor:
        """Embed log-mel (B, T, F) as tokens (B, N, D)."""
        image = self._image(log_mel.to(self.proj.weight.dtype)).contiguous(memory_format=torch.channels_last)
        return self.proj(self.layers(image)).flatten(2).transpose(1, 2)

    def pixels(self, log_mel: Tensor) -> Tensor:
        """Cut log-mel (B, T, F) into the raw values (B, N, P) of the patches, in the order of their tokens."""
        return cut_pixels(self._image(log_mel), self.patch, self.patch)

    def hide(self, log_mel: Tensor, mask: Tensor) -> Tensor:
        """Set the patches of log-mel (B, T, F) that `mask` (B, N) names to 0, so that their neighbours miss them."""
        rows = self._image(log_mel).shape[2] // self.patch[0]
        cells = mask.bool().unflatten(1, (rows, -1))
        hidden = cells.repeat_interleave(self.patch[0], dim=1).repeat_interleave(self.patch[1], dim=2)
        return log_mel.masked_fill(hidden if self.time_major else hidden.transpose(1, 2), 0.0)

    def _image(self, log_mel: Tensor) -> Tensor:
        """(B, 1, T, F) or (B, 1, F, T)."""
        return (log_mel if self.time_major else log_mel.transpose(1, 2)).unsqueeze(1)


def make_patch_embed(
    stem: Stem, width: int, patch: Pair, stride: Pair, time_major: bool = False
) -> PatchEmbed | TimeMajorPatchEmbed | ConvolutionalStem:
    """Make what turns log-mel into tokens; sizes as (mels, frames).

    Raises:
        ValueError: the stem is neither, cannot cut such patches, or they overlap.
    """
    if stem == "patch":
        return TimeMajorPatchEmbed(width, patch) if time_major else PatchEmbed(width, patch, stride)
    if stem != "conv":
        raise ValueError(f"stem must be patch or conv, not {stem!r}")
    if patch != stride:
        raise ValueError(f"a convolutional stem cuts patches side by side: stride {stride} must be {patch}")
    return ConvolutionalStem(width, patch, time_major)
