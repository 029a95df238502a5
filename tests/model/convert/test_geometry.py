"""What shapes tell, and what they leave open."""

import pytest
import torch

from model.convert.errors import MissingFlagError, TensorMismatchError
from model.convert.geometry import Hints, depth, overlapping_grid, plain_grid, transformer_shape

SQUARES = [(stride, stride) for stride in range(10, 17)]


@pytest.mark.parametrize(
    ("patches", "stride", "frames"),
    [(1212, 10, 1024), (600, 10, 512), (144, 10, 128), (850, 12, 1024), (657, 14, 1024), (512, 16, 1024)],
)
def test_published_geometries_need_no_flag(patches, stride, frames):
    assert overlapping_grid(patches, 128, (16, 16), SQUARES, Hints()) == ((stride, stride), frames)


def test_a_flag_decides_between_strides():
    with pytest.raises(MissingFlagError, match=r"stride 10 with 396 frames.*say --stride or --frames"):
        overlapping_grid(468, 128, (16, 16), SQUARES, Hints())
    assert overlapping_grid(468, 128, (16, 16), SQUARES, Hints(stride=10)) == ((10, 10), 396)
    assert overlapping_grid(468, 128, (16, 16), SQUARES, Hints(frames=400)) == ((10, 10), 400)


@pytest.mark.parametrize("hints", [Hints(stride=11), Hints(frames=77)])
def test_flags_that_contradict_the_table_are_refused(hints):
    with pytest.raises(TensorMismatchError, match="a table of 1212 positions fits no input"):
        overlapping_grid(1212, 128, (16, 16), SQUARES, hints)


@pytest.mark.parametrize("patches", [-2, 0, 1])
def test_a_table_of_next_to_nothing_fits_no_input(patches):
    with pytest.raises(TensorMismatchError, match="fits no input"):
        overlapping_grid(patches, 128, (16, 16), SQUARES, Hints())


def test_patches_side_by_side_give_the_length():
    assert plain_grid(512, 128, (16, 16), Hints()) == 1024
    assert plain_grid(8 * 31, 128, (16, 16), Hints()) == 496
    assert plain_grid(8 * 31, 128, (16, 16), Hints(frames=500)) == 500


@pytest.mark.parametrize(("patches", "hints"), [(513, Hints()), (512, Hints(frames=512)), (3, Hints(mels=8))])
def test_patches_that_fill_no_grid_are_refused(patches, hints):
    with pytest.raises(TensorMismatchError, match=f"a table of {patches} positions does not fit"):
        plain_grid(patches, 128 if hints.mels is None else hints.mels, (16, 16), hints)


def state(width: int, channels: int = 1) -> dict[str, torch.Tensor]:
    return {
        "patch_embed.proj.weight": torch.zeros(width, channels, 16, 16),
        "blocks.1.mlp.fc1.weight": torch.zeros(4 * width, width),
        "blocks.0.mlp.fc1.weight": torch.zeros(4 * width, width),
    }


def test_heads_are_64_wide_unless_a_flag_says_otherwise():
    assert transformer_shape(state(384), Hints()).heads == 6
    assert transformer_shape(state(32), Hints(heads=2)).heads == 2
    with pytest.raises(MissingFlagError, match="say --heads"):
        transformer_shape(state(32), Hints())


def test_an_image_network_is_refused():
    with pytest.raises(TensorMismatchError, match="3 channels"):
        transformer_shape(state(384, channels=3), Hints())


def test_layers_are_counted():
    assert depth(state(32), "blocks") == 2
    with pytest.raises(TensorMismatchError, match=r"layers\.0"):
        depth(state(32), "layers")
