"""SSAST, the self-supervised AST: masked patches are told apart and reconstructed, then a classifier is fine-tuned.

Source: arXiv 2110.09784, YuanGongND/ssast:src/models/ast_models.py (BSD-3-Clause). Parameter names are upstream's
without their `v.`; `mlp_head` is called `head`. The patch and the frame model differ only in their patches' shape.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.backbones.transformer import Block, initialise_like_deit, make_head
from model.patches import Pair, PatchEmbed, check_log_mel, cut_or_resize_positions, patch_grid

RECONSTRUCTION_WEIGHT = 10.0
"""Weight of the mean squared error in the joint loss, section 2.3 of the paper."""

CLUSTER_SIDES = (3, 4, 5)


@dataclass(frozen=True)
class SSASTConfig:
    """Everything that shapes an SSAST; `frames` and `mels` are those of the log-mel it sees.

    `classes` is 0 for a network without a classifier, `pretraining` keeps the mask token and the two objectives' heads.
    """

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
    distilled: bool = True
    pooling: Literal["mean", "class"] = "mean"
    pretraining: bool = False
    epsilon: float = 1e-6
    head_epsilon: float = 1e-5

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
        """Patches as (rows, columns): 8 x 64 in pre-training on patches, 1 x 512 on frames."""
        return patch_grid(self.mels, self.frames, self.patch, self.stride)

    @property
    def class_tokens(self) -> int:
        """Tokens before the patches: class, and distillation where there is one."""
        return 2 if self.distilled else 1


class Contrast(NamedTuple):
    """What the discriminative objective gives: its loss, and the share of patches that were told apart."""

    loss: Tensor
    accuracy: Tensor


class SSAST(nn.Module):
    """Log-mel (B, T, F) to logits (B, C), or to the two pre-training losses."""

    def __init__(self, config: SSASTConfig) -> None:
        """Make the network with the paper's initial values."""
        super().__init__()
        self.config = config
        width, grid = config.width, config.grid
        self.patch_embed = PatchEmbed(width, config.patch, config.stride)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if config.distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.class_tokens + grid[0] * grid[1], width))
        hidden = int(width * config.mlp_ratio)
        self.blocks = nn.ModuleList(Block(width, config.heads, hidden, config.epsilon) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, eps=config.epsilon)
        self.head = make_head(width, config.classes, config.head_epsilon)
        if config.pretraining:
            self.mask_embed = nn.Parameter(torch.zeros(1, 1, width))
            self.cpredlayer = _prediction_head(width, config.patch)
            self.gpredlayer = _prediction_head(width, config.patch)
        self._initialise()

    def encode(self, log_mel: Tensor, masked: Tensor | None = None) -> Tensor:
        """Turn log-mel (B, T, F) into tokens after the final norm (B, N, D): class tokens, then f-major patches.

        The patches numbered in `masked` (B, M) are replaced by the mask token, which still gets their positions.

        Raises:
            ValueError: the log-mel is not of the config's frames and mels.
        """
        check_log_mel(log_mel, self.config.frames, self.config.mels)
        patches = self.patch_embed(log_mel)
        if masked is not None:
            hidden = torch.zeros(patches.shape[:2], dtype=torch.bool, device=patches.device).scatter(1, masked, True)
            patches = torch.where(hidden.unsqueeze(-1), self.mask_embed, patches)
        tokens = torch.cat([self.class_tokens().expand(patches.shape[0], -1, -1), patches], dim=1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def embed(self, log_mel: Tensor) -> Tensor:
        """Turn log-mel (B, T, F) into the features (B, D) that the head receives."""
        tokens = self.encode(log_mel)
        if self.config.pooling == "class":
            return tokens[:, : self.config.class_tokens].mean(dim=1)
        return tokens[:, self.config.class_tokens :].mean(dim=1)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Turn normalised log-mel (B, T, F) into logits (B, C)."""
        return self.head(self.embed(log_mel))

    def contrast(self, log_mel: Tensor, masked: Tensor) -> Contrast:
        """Tell the masked patches (B, M) of log-mel (B, T, F) apart: InfoNCE among the patches of one clip.

        The softmax runs over the predictions for each target, as upstream's does; the paper's equation 1 has it
        otherwise. The accuracy then asks, for each prediction, which target gave it the highest probability.
        """
        targets = self._masked_pixels(log_mel, masked)
        predictions = self.cpredlayer(self._masked_tokens(log_mel, masked))
        chances = (targets @ predictions.transpose(1, 2)).log_softmax(dim=2)  # (B, M targets, M predictions)
        own = torch.arange(masked.shape[1], device=masked.device)
        return Contrast(-chances.diagonal(dim1=1, dim2=2).mean(), (chances.argmax(dim=1) == own).float().mean())

    def reconstruct(self, log_mel: Tensor, masked: Tensor) -> Tensor:
        """Mean squared error of the pixels predicted for the masked patches (B, M) of log-mel (B, T, F)."""
        predictions = self.gpredlayer(self._masked_tokens(log_mel, masked))
        return functional.mse_loss(predictions, self._masked_pixels(log_mel, masked))

    def class_tokens(self) -> Tensor:
        """Give the learned tokens before the patches, (1, 1 or 2, D)."""
        return torch.cat([self.cls_token, self.dist_token], dim=1) if self.config.distilled else self.cls_token

    def _masked_tokens(self, log_mel: Tensor, masked: Tensor) -> Tensor:
        """Encoded mask tokens (B, M, D)."""
        patches = self.encode(log_mel, masked)[:, self.config.class_tokens :]
        return patches.gather(1, _columns(masked, patches))

    def _masked_pixels(self, log_mel: Tensor, masked: Tensor) -> Tensor:
        """Raw values of the masked patches (B, M, P)."""
        pixels = self.patch_embed.pixels(log_mel)
        return pixels.gather(1, _columns(masked, pixels))

    def _initialise(self) -> None:
        initialise_like_deit(self.blocks)
        tokens = [self.cls_token, self.dist_token] if self.config.distilled else [self.cls_token]
        for parameter in [*tokens, self.pos_embed]:
            nn.init.trunc_normal_(parameter, std=0.02)
        if self.config.pretraining:
            nn.init.xavier_normal_(self.mask_embed)


def draw_cluster_mask(grid: Pair, count: int, generator: random.Random) -> list[int]:
    """Draw `count` f-major patch numbers in square clusters of one side, 3 to 5, as upstream does, quirks included.

    Patch 0 is never masked, squares run on into the next row at the right edge, and what is drawn beyond `count` is cut
    from the highest numbers.

    Raises:
        ValueError: `count` leaves fewer than two patches.
    """
    rows, columns = grid
    total = rows * columns
    if count > total - 2:
        raise ValueError(f"cannot mask {count} of {total} patches: at most {total - 2} can be drawn")
    side = generator.randrange(len(CLUSTER_SIDES)) + CLUSTER_SIDES[0]
    drawn: set[int] = set()
    while len(drawn) <= count:
        start = generator.randrange(total)
        square = (start + row * columns + column for row in range(side) for column in range(side))
        drawn.update(number for number in square if 0 < number < total)
    return sorted(drawn)[:count]


def draw_frame_mask(total: int, count: int, generator: random.Random) -> list[int]:
    """Draw `count` of `total` patch numbers evenly and without repeats, as the frame model is pre-trained."""
    return generator.sample(range(total), count)


def fit_state(state: Mapping[str, Tensor], source: SSASTConfig, target: SSASTConfig) -> dict[str, Tensor]:
    """Carry the weights of one SSAST to another grid or stride, as fine-tuning does; the kernel is kept.

    What `target` has no use for (pre-training heads, another set of classes) is left out.

    Raises:
        ValueError: the two differ in size or in the shape of their patches.
    """
    if (source.width, source.depth, source.patch) != (target.width, target.depth, target.patch):
        raise ValueError(f"an SSAST of another size cannot be fitted: have {source}, want {target}")
    dropped: tuple[str, ...] = () if source.classes == target.classes else ("head.",)
    if not target.pretraining:
        dropped += ("mask_embed", "cpredlayer.", "gpredlayer.")
    fitted = {name: tensor for name, tensor in state.items() if not name.startswith(dropped)}
    table, extra = state["pos_embed"], source.class_tokens
    patches = cut_or_resize_positions(table[:, extra:], source.grid, target.grid)
    fitted["pos_embed"] = torch.cat([table[:, :extra], patches], dim=1)
    return fitted


def _prediction_head(width: int, patch: Pair) -> nn.Module:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, patch[0] * patch[1]))


def _columns(numbers: Tensor, rows: Tensor) -> Tensor:
    """Patch numbers (B, M) as an index (B, M, D) into rows (B, N, D)."""
    return numbers.unsqueeze(-1).expand(-1, -1, rows.shape[-1])
