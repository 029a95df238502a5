"""Log-mel to tokens: patch embeddings, positional tables and their resampling.

The rules are those of YuanGongND/ast:src/models/ast_models.py, YuanGongND/ssast:src/models/ast_models.py (both
BSD-3-Clause), kaistmm/Audio-Mamba-AuM and SarthakYadav/audio-mamba-official; the kernel resampling is FlexiViT's
(arXiv 2212.08013).

A grid is (rows, columns): frequency cells, time cells. Tokens are listed in one of two orders:

    time -->      0   1   2        f-major: 0 1 2 3 4 5
    mel rows 0  [ 0 | 1 | 2 ]      t-major: 0 3 1 4 2 5
             1  [ 3 | 4 | 5 ]
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

Pair = tuple[int, int]


class PatchEmbed(nn.Module):
    """Cut log-mel into patches and project each to a token, f-major (AST, SSAST, AuM)."""

    def __init__(self, width: int, patch: Pair, stride: Pair) -> None:
        """Make the kernel (width, 1, *patch); `patch` and `stride` are (mels, frames)."""
        super().__init__()
        self.proj = nn.Conv2d(1, width, patch, stride)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Embed log-mel (B, T, F) as tokens (B, N, D), low frequencies first, each row of the grid in time order."""
        image = log_mel.to(self.proj.weight.dtype).transpose(1, 2).unsqueeze(1)  # (B, 1, F, T)
        return self.proj(image).flatten(2).transpose(1, 2)

    def pixels(self, log_mel: Tensor) -> Tensor:
        """Cut log-mel (B, T, F) into the raw values (B, N, P) of the same patches, mel rows outer, frames inner."""
        return cut_pixels(log_mel.transpose(1, 2).unsqueeze(1), self.proj.kernel_size, self.proj.stride)


class TimeMajorPatchEmbed(nn.Module):
    """Cut log-mel into patches and project each to a token, t-major (SSAM and its SSAST baseline)."""

    def __init__(self, width: int, patch: Pair) -> None:
        """Make the kernel (width, 1, frames, mels), as SSAM stores it; `patch` is (mels, frames) and the stride."""
        super().__init__()
        self.proj = nn.Conv2d(1, width, patch[::-1], patch[::-1])

    def forward(self, log_mel: Tensor) -> Tensor:
        """Embed log-mel (B, T, F) as tokens (B, N, D): every band of the first time step, then of the next."""
        image = log_mel.to(self.proj.weight.dtype).unsqueeze(1)  # (B, 1, T, F)
        return self.proj(image).flatten(2).transpose(1, 2)

    def pixels(self, log_mel: Tensor) -> Tensor:
        """Cut log-mel (B, T, F) into the raw values (B, N, P) of the same patches, frames outer, mels inner."""
        return cut_pixels(log_mel.unsqueeze(1), self.proj.kernel_size, self.proj.stride)


def check_log_mel(log_mel: Tensor, frames: int | None, mels: int) -> None:
    """Refuse a log-mel that is not (B, frames, mels); with frames None, any length will do.

    Raises:
        ValueError: the shape is another.
    """
    if log_mel.ndim != 3 or log_mel.shape[2] != mels or (frames is not None and log_mel.shape[1] != frames):
        raise ValueError(f"log-mel must be (B, {frames or 'T'}, {mels}), got {tuple(log_mel.shape)}")


def patch_grid(mels: int, frames: int, patch: Pair, stride: Pair) -> Pair:
    """Count the patches that fit without padding, as (rows, columns); `patch` and `stride` are (mels, frames).

    Raises:
        ValueError: the spectrogram is smaller than one patch, or a size is not positive.
    """
    if min(*patch, *stride) < 1:
        raise ValueError(f"patch {patch} and stride {stride} must be positive")
    if mels < patch[0] or frames < patch[1]:
        raise ValueError(
            f"{mels} mels x {frames} frames is smaller than one patch of {patch[0]} mels x {patch[1]} frames"
        )
    return (mels - patch[0]) // stride[0] + 1, (frames - patch[1]) // stride[1] + 1


def cut_pixels(image: Tensor, patch: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Cut an image (B, 1, H, W) into the raw values (B, N, P) of its patches, row by row; sizes as (H, W)."""
    return functional.unfold(image, patch, stride=stride).transpose(1, 2)


def resize_positions(table: Tensor, source_grid: Pair, target_grid: Pair, antialias: bool) -> Tensor:
    """Resample an f-major positional table (1, N, D) to (1, N', D), bilinearly with half-pixel centres.

    Raises:
        ValueError: the table does not have the rows of `source_grid`.
    """
    if source_grid == target_grid:
        return table
    image = _as_image(table, source_grid)
    return _as_table(_resize(image, target_grid, antialias))


def cut_or_resize_positions(table: Tensor, source_grid: Pair, target_grid: Pair) -> Tensor:
    """Fit an f-major positional table (1, N, D) to another grid as AST and SSAST do: time first, then frequency.

    An axis that shrinks keeps its middle part, from source // 2 - target // 2; one that grows is resized without
    antialias. SSAST takes a detour over 8 rows; for the shapes it publishes (1 and 8 rows) the table is the same.

    Raises:
        ValueError: the table does not have the rows of `source_grid`.
    """
    image = _as_image(table, source_grid)
    image = _cut_or_resize_axis(image, axis=3, size=target_grid[1], resized=(source_grid[0], target_grid[1]))
    image = _cut_or_resize_axis(image, axis=2, size=target_grid[0], resized=target_grid)
    return _as_table(image)


def sine_cosine_positions(width: int, grid: Pair) -> Tensor:
    """Make SSAM's fixed t-major positional table (1, N, D): frequency fills the first D/2 columns, time the last.

    Raises:
        ValueError: `width` is not a multiple of 4 (a sine and a cosine for each of two axes).
    """
    if width % 4:
        raise ValueError(f"width {width} must be a multiple of 4 for sine-cosine positions")
    rows, columns = grid
    time, frequency = torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="ij")  # both t-major
    halves = [_sine_cosine(frequency.flatten(), width // 2), _sine_cosine(time.flatten(), width // 2)]
    return torch.cat(halves, dim=1).unsqueeze(0)


def resize_patch_kernel(kernel: Tensor, size: Pair) -> Tensor:
    """Resample a patch kernel (D, 1, f, t) to `size` so that resized patches keep their tokens (FlexiViT)."""
    source = (kernel.shape[2], kernel.shape[3])
    if source == size:
        return kernel
    matrix = _kernel_resampling(source, size).to(kernel)
    return (kernel.flatten(1) @ matrix.T).unflatten(1, (1, *size))


def _kernel_resampling(source: Pair, target: Pair) -> Tensor:
    """Pseudo-inverse (target cells, source cells) of the resize that maps flattened `source` patches to `target`."""
    cells = source[0] * source[1]
    basis = torch.eye(cells).unflatten(1, (1, *source))  # (cells, 1, f, t)
    resized = _resize(basis, target, antialias=False).flatten(1)  # (source cells, target cells)
    return torch.linalg.pinv(resized)


def _as_image(table: Tensor, grid: Pair) -> Tensor:
    """(1, N, D) -> (1, D, rows, columns)."""
    if table.shape[1] != grid[0] * grid[1]:
        raise ValueError(
            f"a positional table of {table.shape[1]} rows does not fit a grid of {grid[0]} x {grid[1]} patches"
        )
    return table.transpose(1, 2).unflatten(2, grid)


def _as_table(image: Tensor) -> Tensor:
    """(1, D, rows, columns) -> (1, N, D)."""
    return image.flatten(2).transpose(1, 2).contiguous()


def _resize(image: Tensor, size: Pair, antialias: bool) -> Tensor:
    return functional.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=antialias)


def _cut_or_resize_axis(image: Tensor, axis: int, size: int, resized: Pair) -> Tensor:
    source = image.shape[axis]
    if size > source:
        return _resize(image, resized, antialias=False)
    return image.narrow(axis, source // 2 - size // 2, size)


def _sine_cosine(positions: Tensor, width: int) -> Tensor:
    """Encode positions (N,) as (N, width): sines, then cosines, at wavelengths 2 pi to 10000 * 2 pi."""
    rates = 1.0 / 10000 ** (torch.arange(width // 2, dtype=torch.float32) / (width / 2))
    angles = positions.to(torch.float32).outer(rates)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
