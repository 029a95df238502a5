"""SSAM's files, and those of the SSAST baseline beside it; their numbers are in `backbones/test_ssam_model.py`."""

import pytest
import torch

from model.convert.errors import MissingFlagError, TensorMismatchError, WrongFamilyError
from model.convert.geometry import Hints
from model.convert.reading import Source
from model.convert.ssam import convert
from tests.golden import FIXTURES, load_golden


def test_every_size_is_inferred():
    config = convert(Source(FIXTURES, load_golden("ssam_encoder").state), Hints()).config
    assert (config.mixer, config.width, config.depth, config.classes) == ("mamba", 32, 3, 0)
    assert (config.mels, config.frames, config.grid) == (80, 200, (5, 50))
    assert (config.expand, config.state_size, config.conv_width, config.pretraining) == (3, 24, 4, True)


def test_the_baseline_is_told_by_its_attention():
    config = convert(Source(FIXTURES, load_golden("ssast_yadav_encoder").state), Hints(heads=2)).config
    assert (config.mixer, config.heads, config.mlp_ratio, config.frames) == ("attention", 2, 4.0, 200)
    with pytest.raises(MissingFlagError, match="--heads"):
        convert(Source(FIXTURES, load_golden("ssast_yadav_encoder").state), Hints())


def test_stored_positions_are_kept_even_where_they_are_not_sines():
    golden = load_golden("ssam_pretrain")
    converted = convert(Source(FIXTURES, golden.state), Hints())
    assert torch.equal(converted.state["pos_embed"], golden.state["pos_embed"])


@pytest.mark.parametrize("name", ["pred.2.bias", "blocks.1.mixer.D", "encoder_norm.weight", "patch_embed.proj.weight"])
def test_a_missing_tensor_is_named(name):
    state = dict(load_golden("ssam_pretrain").state)
    del state[name]
    with pytest.raises(
        (TensorMismatchError, WrongFamilyError), match=name if name != "encoder_norm.weight" else "holds"
    ):
        convert(Source(FIXTURES, state), Hints())


def test_another_family_is_refused():
    with pytest.raises(WrongFamilyError, match="use --from ssast"):
        convert(Source(FIXTURES, load_golden("ssast_frame_pretrain").state), Hints())
