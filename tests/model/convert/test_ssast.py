"""Official SSAST files, pre-trained and fine-tuned; their numbers are in `backbones/test_ssast_model.py`."""

import pytest
import torch

from model.convert.errors import MissingFlagError, TensorMismatchError, WrongFamilyError
from model.convert.geometry import Hints
from model.convert.reading import Source
from model.convert.ssast import convert
from tests.golden import FIXTURES, load_golden


@pytest.mark.parametrize(
    ("name", "patch", "grid"),
    [("ssast_patch_pretrain", (16, 16), (8, 64)), ("ssast_frame_pretrain", (128, 2), (1, 80))],
)
def test_pretrained_files_record_their_input(name, patch, grid):
    converted = convert(Source(FIXTURES, load_golden(name).state), Hints(heads=2))
    assert (converted.config.patch, converted.config.stride, converted.config.grid) == (patch, patch, grid)
    assert (converted.config.classes, converted.config.pretraining) == (0, True)
    assert "p_input_fdim" not in converted.state


def test_a_fine_tuned_frame_model_moves_by_one_frame():
    config = convert(Source(FIXTURES, load_golden("ssast_frame").state), Hints(heads=2)).config
    assert (config.stride, config.frames, config.grid) == ((128, 1), 128, (1, 127))


def test_a_fine_tuned_patch_model_of_unpublished_length_needs_it():
    state = load_golden("ssast_patch").state
    with pytest.raises(MissingFlagError, match="--frames"):
        convert(Source(FIXTURES, state), Hints(heads=2))
    config = convert(Source(FIXTURES, state), Hints(heads=2, frames=400)).config
    assert (config.stride, config.grid, config.pooling) == ((10, 10), (12, 39), "mean")


def test_pooling_is_a_flag():
    config = convert(Source(FIXTURES, load_golden("ssast_frame").state), Hints(heads=2, pooling="class")).config
    assert config.pooling == "class"


def test_a_table_that_contradicts_the_recorded_input_is_named():
    state = load_golden("ssast_patch_pretrain").state | {"p_input_tdim": torch.tensor(512)}
    with pytest.raises(TensorMismatchError, match=r"pos_embed \(1, 514, 32\) instead of \(1, 258, 32\)"):
        convert(Source(FIXTURES, state), Hints(heads=2))


def test_another_family_is_refused():
    with pytest.raises(WrongFamilyError, match="use --from hf-ast"):
        convert(Source(FIXTURES, load_golden("ast_hf_sc").state), Hints())
