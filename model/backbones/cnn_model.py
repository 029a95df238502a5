"""A plain convolutional network over log-mel: the teacher from which the small transformers and Mambas learn.

Pairs of 3x3 convolutions with batch norm, halved in both directions after each pair, then pooled over time as the sum
of mean and maximum: the layout of PANNs (Kong et al. 2020, arXiv 1912.10211, section III) at a fraction of its width,
and with a first convolution of stride 2, which makes it four times cheaper.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.patches import check_log_mel


@dataclass(frozen=True)
class CNNConfig:
    """Sizes of one CNN: one block for each of `widths`."""

    classes: int
    mels: int = 64
    frames: int = 512
    widths: tuple[int, ...] = (32, 64, 128, 256)
    dropout: float = 0.2


class CNN(nn.Module):
    """Normalised log-mel (B, T, F) → logits (B, C)."""

    def __init__(self, config: CNNConfig) -> None:
        super().__init__()
        self.config = config
        widths = (1, *config.widths)
        pairs = enumerate(pairwise(widths))
        self.blocks = nn.ModuleList(_Block(narrow, wide, stride=1 if i else 2) for i, (narrow, wide) in pairs)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(widths[-1], config.classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(self, log_mel: Tensor) -> Tensor:
        """The features (B, D) before the head.

        Raises: ValueError if log_mel is not (B, frames, mels) of this network's config.
        """
        check_log_mel(log_mel, self.config.frames, self.config.mels)
        image = log_mel[:, None].contiguous(memory_format=torch.channels_last)  # (B, 1, T, F)
        for block in self.blocks[:-1]:
            image = functional.avg_pool2d(block(image), 2)
        times = self.blocks[-1](image).float().mean(dim=3)  # (B, D, T')
        return self.dropout(times.mean(dim=2) + times.amax(dim=2))

    def forward(self, log_mel: Tensor) -> Tensor:
        """Turn normalised log-mel (B, T, F) into logits (B, C)."""
        return self.head(self.embed(log_mel))


class _Block(nn.Module):
    def __init__(self, narrow: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(narrow, wide, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)

    def forward(self, image: Tensor) -> Tensor:
        image = functional.relu(self.norm1(self.conv1(image)))
        return functional.relu(self.norm2(self.conv2(image)))
