"""SSAST against the official code's numbers: both objectives, both poolings, both kinds of mask."""

import random
from dataclasses import replace

import pytest
import torch

from model.backbones.ssast_model import (
    RECONSTRUCTION_WEIGHT,
    SSAST,
    SSASTConfig,
    draw_cluster_mask,
    draw_frame_mask,
    fit_state,
)
from model.convert.geometry import Hints
from model.convert.reading import Source
from model.convert.ssast import convert
from tests.golden import FIXTURES, Golden, assert_close, load_golden

TINY = SSASTConfig(
    classes=0, frames=160, width=24, depth=2, heads=3, stride_mels=16, stride_frames=16, pretraining=True
)


def official(golden: Golden, pooling: str = "mean") -> SSAST:
    hints = Hints(heads=2, frames=golden.config["input_tdim"], pooling=pooling)  # type: ignore[arg-type]
    converted = convert(Source(FIXTURES, golden.state), hints)
    network = SSAST(converted.config)
    network.load_state_dict(converted.state)
    return network.eval()


@pytest.mark.parametrize("name", ["ssast_patch", "ssast_frame"])
@pytest.mark.parametrize(("pooling", "suffix"), [("mean", ""), ("class", "_cls")])
def test_fine_tuned_weights_give_the_official_numbers(name, pooling, suffix):
    golden = load_golden(name)
    network = official(golden, pooling)
    with torch.inference_mode():
        assert_close(network(golden["input"]), golden["logits" + suffix])
        assert_close(network.embed(golden["input"]), golden["features" + suffix])


@pytest.mark.parametrize("name", ["ssast_patch_pretrain", "ssast_frame_pretrain"])
def test_pretraining_weights_give_the_official_losses(name):
    golden = load_golden(name)
    network = official(golden)
    with torch.inference_mode():
        contrast = network.contrast(golden["input"], golden["mask_index"])
        reconstruction = network.reconstruct(golden["input"], golden["mask_index"])
    assert_close(contrast.loss, golden["nce"])
    assert_close(contrast.accuracy, golden["accuracy"])
    assert_close(reconstruction, golden["mse"])
    assert_close(contrast.loss + RECONSTRUCTION_WEIGHT * reconstruction, golden["loss_joint"])


@pytest.mark.parametrize(("seed", "count"), [(1000, 400), (1001, 250), (1002, 100)])
def test_cluster_masks_are_those_of_the_official_generator(seed, count):
    expected = load_golden("ssast_masks")[f"patch{seed - 1000}_n512_t64_m{count}"]
    generator = random.Random(seed)
    drawn = torch.tensor([draw_cluster_mask((8, 64), count, generator) for _ in expected])
    assert torch.equal(drawn, expected.long())


def test_frame_masks_are_those_of_the_official_generator():
    expected = load_golden("ssast_masks")["frame_n512_m400"]
    generator = random.Random(2000)
    assert torch.equal(torch.tensor([draw_frame_mask(512, 400, generator) for _ in expected]), expected.long())


def test_a_cluster_mask_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="at most 510"):
        draw_cluster_mask((8, 64), 511, random.Random(0))


@pytest.mark.parametrize(
    ("size", "parameters"), [((192, 3), 6_046_290), ((384, 6), 22_854_354), ((768, 12), 88_763_346)]
)
@pytest.mark.parametrize("patch", [(16, 16), (128, 2)])
def test_published_sizes_have_the_published_number_of_parameters(size, parameters, patch):
    """Upstream's count includes two unused ImageNet heads and the two recorded input sizes."""
    width, heads = size
    mels, frames = patch
    config = SSASTConfig(0, width=width, heads=heads, patch_mels=mels, patch_frames=frames, pretraining=True)
    with torch.device("meta"):
        network = SSAST(replace(config, stride_mels=mels, stride_frames=frames))
    unused = 2 * 1000 * (width + 1) + 2
    assert sum(parameter.numel() for parameter in network.parameters()) + unused == parameters


def test_masked_patches_are_hidden_from_the_encoder():
    network = SSAST(TINY).eval()
    log_mel = torch.randn(1, 160, 128, generator=torch.Generator().manual_seed(0))
    changed = log_mel.clone()
    changed[:, :16, :16] += 1.0  # patch 0
    masked = torch.tensor([[0, 3, 5]])
    with torch.inference_mode():
        assert_close(network.encode(log_mel, masked), network.encode(changed, masked), 0)


def test_the_losses_train_every_parameter():
    network = SSAST(TINY)
    log_mel = torch.randn(2, 160, 128, generator=torch.Generator().manual_seed(0))
    masked = torch.tensor([draw_cluster_mask((8, 10), 20, random.Random(seed)) for seed in (0, 1)])
    loss = network.contrast(log_mel, masked).loss + RECONSTRUCTION_WEIGHT * network.reconstruct(log_mel, masked)
    loss.backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


def test_pretrained_weights_start_a_classifier_with_overlap():
    source = SSAST(TINY)
    target = SSAST(replace(TINY, classes=5, frames=200, stride_mels=10, stride_frames=10, pretraining=False))
    missing, unknown = target.load_state_dict(
        fit_state(source.state_dict(), source.config, target.config), strict=False
    )
    assert set(missing) == {"head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias"}
    assert not unknown


def test_official_fine_tuning_fits_the_same_positions():
    golden = load_golden("ssast_patch")
    target = official(golden)
    source = replace(target.config, frames=1024, stride_mels=16, stride_frames=16)
    state = {**target.state_dict(), "pos_embed": golden["pretrained.module.v.pos_embed"]}
    assert_close(fit_state(state, source, target.config)["pos_embed"], golden.state["v.pos_embed"])


def test_patches_of_another_shape_are_not_fitted():
    with pytest.raises(ValueError, match="another size"):
        fit_state(SSAST(TINY).state_dict(), TINY, replace(TINY, patch_frames=8))
