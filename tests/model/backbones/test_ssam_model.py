"""SSAM against the official code's numbers: encoder, masked pre-training, HEAR features; and the SSAST baseline."""

from dataclasses import replace

import pytest
import torch

from model.backbones.ssam_model import (
    SIZES,
    SSAM,
    SSAMConfig,
    draw_mask,
    fit_state,
    reconstruction_loss,
    row_timestamps,
    scene_embedding,
)
from model.convert.geometry import Hints
from model.convert.reading import Source
from model.convert.ssam import convert
from model.features import SSAM_LOG_MEL, LogMel
from tests.golden import FIXTURES, Golden, assert_close, load_golden

TINY = SSAMConfig(classes=7, width=16, depth=2, expand=2, state_size=4, heads=2)


def official(golden: Golden) -> SSAM:
    converted = convert(Source(FIXTURES, golden.state), Hints(heads=golden.config.get("num_heads")))
    network = SSAM(converted.config)
    network.load_state_dict(converted.state)
    return network.eval()


def log_mel(batch: int, frames: int) -> torch.Tensor:
    return torch.randn(batch, frames, 80, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["ssam_encoder", "ssast_yadav_encoder"])
def test_official_weights_give_the_official_features(name):
    golden = load_golden(name)
    with torch.inference_mode():
        assert_close(official(golden).features(golden["input"][:, 0], "released"), golden["features"])


def test_masked_pretraining_gives_the_official_numbers():
    golden = load_golden("ssam_pretrain")
    network, mask = official(golden), golden["mask"]
    with torch.inference_mode():
        targets = network.patch_embed.pixels(golden["input"][:, 0])
        predictions = network.reconstruct(golden["input"][:, 0], mask)
    assert_close(targets, golden["target"], 0)
    assert_close(predictions, golden["recon"])
    assert_close(reconstruction_loss(predictions, targets), golden["loss"])
    assert_close(reconstruction_loss(predictions, targets, mask), golden["loss_masked_only"])
    assert_close(reconstruction_loss(predictions, targets, normalise=True), golden["loss_normpix"])
    assert_close(reconstruction_loss(predictions, targets, mask, normalise=True), golden["loss_normpix_masked_only"])


@pytest.mark.parametrize("case", [0, 1])
def test_waveforms_give_the_official_hear_embeddings(case):
    golden = load_golden("ssam_hear")
    network, waveform = official(golden), golden[f"wave{case}"]
    frames = 1 + waveform.shape[1] // 160
    with torch.inference_mode():
        features = LogMel(replace(SSAM_LOG_MEL, frames=frames))(waveform)
        rows = network.features(features, "released")
    assert_close(rows, golden[f"timestamp_embeddings{case}"], 1e-4)  # two front ends differ by as much
    assert_close(scene_embedding(rows), golden[f"scene_embeddings{case}"])
    assert_close(row_timestamps(rows.shape[1], waveform.shape[1] / 16000), golden[f"timestamps_ms{case}"][0], 1e-3)


def test_the_official_log_mel_gives_the_official_hear_embeddings():
    golden = load_golden("ssam_hear")
    with torch.inference_mode():
        rows = official(golden).features(golden["logmel0"][:, 0], "released")
    assert_close(rows, golden["timestamp_embeddings0"])
    assert_close(scene_embedding(rows), golden["scene_embeddings0"])


def test_rows_in_time_order_hold_the_bands_of_one_time_step():
    network = SSAM(TINY).eval()
    with torch.inference_mode():
        tokens = network.encode(log_mel(1, 200))
        rows = network.features(log_mel(1, 200))
    assert_close(rows[0, 7], tokens[0, 35:40].flatten(), 1e-6)


def test_rows_in_released_order_mix_time_steps():
    """The trap of SPEC 0.12: row j holds tokens j, 50 + j, 100 + j, 150 + j, 200 + j."""
    network = SSAM(TINY).eval()
    with torch.inference_mode():
        tokens = network.encode(log_mel(1, 200))
        rows = network.features(log_mel(1, 200), "released")
    assert_close(rows[0, 7], tokens[0, 7::50].flatten(), 1e-6)


@pytest.mark.parametrize(("frames", "rows"), [(200, 50), (400, 100), (231, 58), (199, 50), (3, 1), (1001, 251)])
def test_each_started_four_frames_give_a_row(frames, rows):
    network = SSAM(TINY).eval()
    with torch.inference_mode():
        assert network.features(log_mel(1, frames)).shape == (1, rows, 5 * 16)


@pytest.mark.parametrize("mixer", ["mamba", "attention"])
def test_a_batch_equals_singles(mixer):
    network = SSAM(replace(TINY, mixer=mixer)).eval()
    batch = log_mel(3, 500)
    with torch.inference_mode():
        singles = torch.cat([network(row[None]) for row in batch])
        assert_close(network(batch), singles)
    assert singles.shape == (3, 7)


@pytest.mark.parametrize(
    ("size", "mixer", "values"),
    [
        ("tiny", "mamba", 4_808_704),
        ("small", "mamba", 17_985_472),
        ("base", "mamba", 69_443_392),
        ("tiny", "attention", 5_449_216),
        ("small", "attention", 21_588_928),
        ("base", "attention", 85_940_032),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(size, mixer, values):
    """Upstream's count includes the fixed positions and the reconstruction head."""
    with torch.device("meta"):
        network = SSAM(SSAMConfig(0, **SIZES[size], mixer=mixer, pretraining=True))
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == values


def test_half_of_the_patches_are_masked():
    mask = draw_mask(4, 250, generator=torch.Generator().manual_seed(0))
    assert mask.sum(dim=1).tolist() == [125] * 4
    assert not torch.equal(mask[0], mask[1])


def test_a_masked_patch_loses_its_position_too():
    """The trap of SPEC 0.11: the mask token replaces token and position together."""
    network = SSAM(replace(TINY, pretraining=True)).eval()
    mask = torch.zeros(1, 250)
    mask[0, 100] = 1
    with torch.inference_mode():
        before = network.reconstruct(log_mel(1, 200), mask)
        network.pos_embed[0, 101] += 1.0
        assert_close(network.reconstruct(log_mel(1, 200), mask), before, 0)


def test_the_loss_trains_every_parameter_but_the_classifier():
    network = SSAM(replace(TINY, pretraining=True))
    mask = draw_mask(2, 250, generator=torch.Generator().manual_seed(0))
    targets = network.patch_embed.pixels(log_mel(2, 200))
    reconstruction_loss(network.reconstruct(log_mel(2, 200), mask), targets).backward()
    untrained = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert all(name.startswith("head.") for name in untrained)


def test_pretrained_weights_start_a_classifier():
    source = SSAM(replace(TINY, classes=0, pretraining=True))
    target = SSAM(replace(TINY, classes=3))
    missing, unknown = target.load_state_dict(
        fit_state(source.state_dict(), source.config, target.config), strict=False
    )
    assert set(missing) == {"head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias"}
    assert not unknown


def test_another_chunk_length_takes_fresh_positions():
    target = replace(TINY, frames=400)
    assert "pos_embed" not in fit_state(SSAM(TINY).state_dict(), TINY, target)
    with pytest.raises(ValueError, match="another size"):
        fit_state(SSAM(TINY).state_dict(), TINY, replace(TINY, mixer="attention"))


def test_log_mel_with_other_mels_is_refused():
    with pytest.raises(ValueError, match=r"must be \(B, T, 80\)"):
        SSAM(TINY)(torch.zeros(1, 200, 128))
