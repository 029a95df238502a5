"""Augmentation keeps shapes and ranges, is seeded, and does what it says."""

import pytest
import torch

from model.training import augment


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def _sine(hz: float, samples: int = 16000) -> torch.Tensor:
    return torch.sin(torch.arange(samples) / 16000 * 2 * torch.pi * hz)


def test_place_without_a_generator_stands_at_the_start() -> None:
    placed, length = augment.place(torch.tensor([0.5, -0.5]), 4, None)
    assert placed.tolist() == [0.5, -0.5, 0.0, 0.0]
    assert length == 2


def test_place_cuts_long_sounds_anywhere(generator: torch.Generator) -> None:
    ramp = torch.arange(1000.0)
    starts = set()
    for _ in range(50):
        placed, length = augment.place(ramp, 10, generator)
        assert length == 10
        assert torch.equal(placed, torch.arange(10) + placed[0])
        starts.add(float(placed[0]))
    assert len(starts) > 30


def test_place_puts_short_sounds_in_silence_or_at_the_start_of_a_short_window(generator: torch.Generator) -> None:
    lengths = [augment.place(torch.ones(3), 100, generator)[1] for _ in range(60)]
    assert set(lengths) == {3, 100}


def test_gain_scales_within_its_range(generator: torch.Generator) -> None:
    scaled = augment.random_gain(torch.ones(200, 1), 6.0, generator)
    assert scaled.min() >= 10 ** (-6 / 20) - 1e-6
    assert scaled.max() <= 10 ** (6 / 20) + 1e-6
    assert scaled.std() > 0.1


def test_low_pass_keeps_low_and_removes_high(generator: torch.Generator) -> None:
    low, high = _sine(500).repeat(4, 1), _sine(7900).repeat(4, 1)
    assert augment.random_low_pass(low, 1.0, 16000, generator).std() == pytest.approx(float(low.std()), rel=0.01)
    assert augment.random_low_pass(high, 1.0, 16000, generator).std() < 0.1 * high.std()
    assert torch.equal(augment.random_low_pass(high, 0.0, 16000, generator), high)


def test_roll_keeps_every_sample_and_leaves_short_sounds_alone(generator: torch.Generator) -> None:
    waveforms = torch.arange(100.0).repeat(2, 1)
    rolled = augment.random_roll(waveforms, torch.tensor([100, 60]), generator)
    assert sorted(rolled[0].tolist()) == waveforms[0].tolist()
    assert not torch.equal(rolled[0], waveforms[0])
    assert torch.equal(rolled[1], waveforms[1])


def test_mix_up_mixes_sounds_labels_and_lengths(generator: torch.Generator) -> None:
    waveforms, targets = torch.eye(8), torch.eye(8)
    mixed, lengths, wanted = augment.mix_up(waveforms, torch.arange(1, 9), targets, 1.0, 10.0, generator)
    assert torch.allclose(mixed, wanted)
    assert torch.allclose(wanted.sum(1), torch.ones(8))
    for row in range(8):
        assert lengths[row] == max(i + 1 for i in wanted[row].nonzero().flatten().tolist())


def test_mix_up_keeps_a_shared_label_whole(generator: torch.Generator) -> None:
    _, _, wanted = augment.mix_up(torch.rand(6, 4), torch.full((6,), 4), torch.ones(6, 2), 1.0, 10.0, generator)
    assert torch.allclose(wanted, torch.ones(6, 2))


def test_mix_up_with_probability_zero_changes_nothing(generator: torch.Generator) -> None:
    waveforms = torch.rand(6, 4)
    mixed, _, _ = augment.mix_up(waveforms, torch.full((6,), 4), torch.ones(6, 2), 0.0, 10.0, generator)
    assert torch.equal(mixed, waveforms)


def test_masks_are_zero_bounded_and_differ_between_rows(generator: torch.Generator) -> None:
    masked = augment.mask_spectrogram(torch.ones(40, 64, 32), mels=8, frames=16, generator=generator)
    hidden_frames = (masked == 0).all(2).sum(1)
    hidden_mels = (masked == 0).all(1).sum(1)
    assert hidden_frames.max() < 16
    assert hidden_mels.max() < 8
    assert len(set(hidden_frames.tolist())) > 3
    assert set(masked.unique().tolist()) == {0.0, 1.0}


def test_the_same_seed_gives_the_same_batch() -> None:
    first, second = (
        augment.mix_up(torch.ones(5, 3), torch.full((5,), 3), torch.eye(5), 0.5, 10.0, torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
