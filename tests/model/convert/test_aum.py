"""Official AuM files to our AuM, and to other lengths and patches."""

from dataclasses import replace

import pytest
import torch

from model.backbones.aum_model import AuM, resize_state
from model.convert.aum import convert
from model.convert.errors import TensorMismatchError, WrongFamilyError
from model.convert.geometry import Hints
from model.convert.reading import Source
from tests.golden import FIXTURES, assert_close, load_golden


@pytest.mark.parametrize("name", ["aum_fobi", "aum_bibi", "aum_fofo"])
def test_sizes_and_variant_are_inferred_and_the_numbers_are_official(name):
    golden = load_golden(name)
    converted = convert(Source(FIXTURES, golden.state), Hints())
    config = converted.config
    assert [config.mels, config.frames] == golden.config["spectrogram_size"]
    assert (config.depth, config.width) == (golden.config["depth"], golden.config["embed_dim"])
    assert (config.classes, config.variant) == (golden.config["num_classes"], golden.config["bimamba_type"])
    network = AuM(config).eval()
    network.load_state_dict(converted.state)
    with torch.inference_mode():
        assert_close(network(golden["input"]), golden["logits"])


@pytest.mark.parametrize("case", range(4))
def test_a_converted_file_fits_other_lengths_and_patches(case):
    golden = load_golden("aum_resample")
    converted = convert(Source(FIXTURES, golden.state), Hints())
    target = golden.config["targets"][case]
    mels, frames = target["spectrogram_size"]
    wanted = replace(
        converted.config, mels=mels, frames=frames, patch=target["patch_size"][0], stride=target["strides"][0]
    )
    network = AuM(wanted).eval()
    network.load_state_dict(resize_state(converted.state, converted.config, wanted))
    assert_close(network.pos_embed.pos_embed, golden[f"dst{case}.pos_embed.pos_embed"])
    if f"dst{case}.logits" in golden.tensors:
        with torch.inference_mode():
            assert_close(network(golden[f"dst{case}.input"]), golden[f"dst{case}.logits"])


def test_overlapping_patches_need_their_stride():
    state = dict(load_golden("aum_fofo").state)
    state["pos_embed.pos_embed"] = torch.zeros(1, 1 + 12 * 50, 32)
    config = convert(Source(FIXTURES, state), Hints(stride=10)).config
    assert (config.stride, config.frames) == (10, 512)


def test_a_missing_tensor_of_a_variant_is_named():
    state = dict(load_golden("aum_bibi").state)
    del state["layers.2.mixer.conv1d_b.weight"]
    with pytest.raises(TensorMismatchError, match=r"lacks tensors: layers\.2\.mixer\.conv1d_b\.weight"):
        convert(Source(FIXTURES, state), Hints())


def test_another_family_is_refused():
    with pytest.raises(WrongFamilyError, match="use --from ssam"):
        convert(Source(FIXTURES, load_golden("ssam_encoder").state), Hints())
