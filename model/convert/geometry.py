"""What tensor shapes tell about a network, and which flags must tell the rest."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from model.convert.errors import MissingFlagError, TensorMismatchError
from model.convert.renaming import take
from model.patches import Pair, patch_grid

PUBLISHED_FRAMES = (1024, 512, 128)
"""Input lengths of the published checkpoints: AudioSet, ESC-50, Speech Commands (and their like)."""

HEAD_WIDTH = 64
"""Columns per attention head in every DeiT, hence in every published AST and SSAST."""


@dataclass(frozen=True)
class Hints:
    """What the user says by flags about a network, where its file leaves it open."""

    stride: int | None = None
    frames: int | None = None
    mels: int | None = None
    heads: int | None = None
    pooling: Literal["mean", "class"] | None = None


@dataclass(frozen=True)
class TransformerShape:
    """The part of an AST's or SSAST's config that tensor shapes give; the fields are called as there."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float
    patch_mels: int
    patch_frames: int
    distilled: bool
    mels: int

    @property
    def patch(self) -> Pair:
        """Patch size (mels, frames)."""
        return self.patch_mels, self.patch_frames


def transformer_shape(state: Mapping[str, Tensor], hints: Hints) -> TransformerShape:
    """Read an AST's or SSAST's sizes from its tensors, under our names.

    Raises:
        TensorMismatchError: a tensor that tells is missing. MissingFlagError: the number of heads is open.
    """
    kernel = take(state, "patch_embed.proj.weight", 4)
    width, channels, patch_mels, patch_frames = kernel.shape
    if channels != 1:
        raise TensorMismatchError(f"patch_embed.proj.weight has {channels} channels; a network for sound has one")
    return TransformerShape(
        width=width,
        depth=depth(state, "blocks"),
        heads=_heads(width, hints),
        mlp_ratio=take(state, "blocks.0.mlp.fc1.weight", 2).shape[0] / width,
        patch_mels=patch_mels,
        patch_frames=patch_frames,
        distilled="dist_token" in state,
        mels=hints.mels or 128,
    )


def depth(state: Mapping[str, Tensor], stem: str) -> int:
    """Count the layers called `stem`.0, `stem`.1, ...

    Raises:
        TensorMismatchError: there are none.
    """
    numbers = [int(found[1]) for name in state if (found := re.match(rf"{stem}\.(\d+)\.", name))]
    if not numbers:
        raise TensorMismatchError(f"the file lacks tensors: {stem}.0")
    return max(numbers) + 1


@dataclass(frozen=True)
class MixerShape:
    """The part of an AuM's or SSAM's config that the first mixer's tensors give; the fields are called as there."""

    expand: int
    state_size: int
    conv_width: int


def mixer_shape(state: Mapping[str, Tensor], stem: str, width: int) -> MixerShape:
    """Read a Mamba mixer's sizes from its tensors, called `stem`.A_log and so on.

    Raises:
        TensorMismatchError: they are missing, or do not go with a network of this width.
    """
    inner, state_size = take(state, f"{stem}.A_log", 2).shape
    if inner % width:
        raise TensorMismatchError(
            f"{stem}.A_log has {inner} rows, which is no multiple of the network's width, {width}"
        )
    return MixerShape(inner // width, state_size, take(state, f"{stem}.conv1d.weight", 3).shape[2])


def classes(state: Mapping[str, Tensor], name: str) -> int:
    """Count the outputs of the head's last layer, whose weight is called `name`.

    Raises:
        TensorMismatchError: it is missing.
    """
    return take(state, name, 2).shape[0]


def overlapping_grid(patches: int, mels: int, patch: Pair, strides: Iterable[Pair], hints: Hints) -> tuple[Pair, int]:
    """Find the stride (mels, frames) and the input length that give so many patches.

    Strides that leave a published length open are taken only if a flag says so. Frames behind the last patch change
    nothing, so with a stride given, the shortest length that fits will do.

    Raises:
        MissingFlagError: several fit, or none. TensorMismatchError: the flags do not fit the table.
    """
    fits = [(stride, frames) for stride in strides for frames in _lengths(patches, mels, patch, stride)]
    if hints.stride is not None:
        fits = [(stride, frames) for stride, frames in fits if stride[1] == hints.stride]
    if hints.frames is not None:
        fits = [(stride, frames) for stride, frames in fits if frames == hints.frames]
    if not fits:
        raise TensorMismatchError(
            f"a table of {patches} positions fits no input of {mels} mels in patches of {patch[0]} x {patch[1]} with "
            f"the strides that are published or asked for; say --stride, --frames and --mels as it was trained"
        )
    chosen = fits if hints.frames else [fit for fit in fits if fit[1] in PUBLISHED_FRAMES] or fits
    if len({stride for stride, _ in chosen}) > 1 or (chosen is fits and hints.stride is None and hints.frames is None):
        raise MissingFlagError(
            f"a table of {patches} positions fits several inputs ({_describe(chosen)}); say --stride or --frames"
        )
    return chosen[0]


def plain_grid(patches: int, mels: int, patch: Pair, hints: Hints) -> int:
    """Find the input length that gives so many patches side by side.

    Raises:
        TensorMismatchError: the patches do not fill whole rows, or the length given by flag has another number of them.
    """
    rows = mels // patch[0]
    frames = hints.frames or patches // max(rows, 1) * patch[1]
    if rows == 0 or frames < patch[1] or _count(mels, frames, patch, patch) != patches:
        raise TensorMismatchError(
            f"a table of {patches} positions does not fit {mels} mels x {frames} frames in patches of "
            f"{patch[0]} x {patch[1]}; say --frames and --mels as it was trained"
        )
    return frames


def _heads(width: int, hints: Hints) -> int:
    if hints.heads:
        return hints.heads
    if width % HEAD_WIDTH:
        raise MissingFlagError(f"the number of attention heads cannot be told from a width of {width}; say --heads")
    return width // HEAD_WIDTH


def _count(mels: int, frames: int, patch: Pair, stride: Pair) -> int:
    rows, columns = patch_grid(mels, frames, patch, stride)
    return rows * columns


def _lengths(patches: int, mels: int, patch: Pair, stride: Pair) -> range:
    """Input lengths whose grid at this stride has so many patches."""
    rows = (mels - patch[0]) // stride[0] + 1
    if rows < 1 or patches < 1 or patches % rows:
        return range(0)
    shortest = (patches // rows - 1) * stride[1] + patch[1]
    return range(shortest, shortest + stride[1])


def _describe(fits: list[tuple[Pair, int]]) -> str:
    """One example per stride."""
    examples = {stride[1]: frames for stride, frames in reversed(fits)}
    return ", ".join(f"stride {stride} with {frames} frames" for stride, frames in sorted(examples.items()))
