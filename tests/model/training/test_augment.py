"""Augmentation keeps shapes and ranges, is seeded, and does what it says."""

import runpy
from pathlib import Path

import pytest
import torch

from model.training import augment

ROOT = Path(__file__).parents[3]


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


def test_high_pass_keeps_high_and_removes_low(generator: torch.Generator) -> None:
    low, high = _sine(20).repeat(4, 1), _sine(2000).repeat(4, 1)
    assert augment.random_high_pass(high, 1.0, 16000, generator).std() == pytest.approx(float(high.std()), rel=0.01)
    assert augment.random_high_pass(low, 1.0, 16000, generator).std() < 0.1 * low.std()
    some = augment.random_high_pass(_sine(20).repeat(100, 1), 0.3, 16000, generator)
    assert 15 < int((some.std(1) < 0.5 * low.std()).sum()) < 45


def test_noise_and_shift_rotates_by_a_few_frames_and_adds_a_little(generator: torch.Generator) -> None:
    log_mel = torch.zeros(300, 60, 4)
    log_mel[:, 30] = 1000.0
    disturbed = augment.noise_and_shift(log_mel, generator)
    shifts = disturbed[:, :, 0].argmax(1) - 30
    assert (int(shifts.min()), int(shifts.max())) == (-10, 9)
    noise = disturbed - torch.stack([row.roll(int(shift), 0) for row, shift in zip(log_mel, shifts, strict=True)])
    assert -1e-3 <= float(noise.min()) < 0.001
    assert 0.09 < float(noise.max()) < 0.1 + 1e-3
    assert float(noise.amax((1, 2)).std()) > 0.02  # one factor per row


def test_a_warp_moves_one_frame_and_keeps_the_ends(generator: torch.Generator) -> None:
    ramp = torch.arange(100.0)[None, :, None].repeat(50, 1, 3)
    warped = augment.warp_time(ramp, 5, generator)
    assert torch.allclose(warped[:, 0], ramp[:, 0])
    assert torch.allclose(warped[:, -1], ramp[:, -1])
    assert (warped.diff(dim=1) > 0).all()  # time never runs backwards
    moved = (warped - ramp).abs().amax((1, 2))
    assert float(moved.max()) <= 5 + 1e-4
    assert float(moved.max()) > 3
    assert torch.equal(augment.warp_time(ramp[:, :10], 5, generator), ramp[:, :10])


NEW = {
    "high_pass": lambda rows, g, on: augment.random_high_pass(rows, 0.5 * on, 16000, g),
    "warp_time": lambda rows, g, on: augment.warp_time(rows[:, :2400].reshape(len(rows), 80, 30), 5 * on, g),
}


@pytest.mark.parametrize("name", NEW)
def test_what_the_first_recipes_did_not_have_draws_only_where_it_is_wanted(name: str) -> None:
    rows = torch.randn(6, 3000, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(3)
    NEW[name](rows, generator, 0)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(3).get_state())
    first, again = (NEW[name](rows, torch.Generator().manual_seed(1), 1) for _ in range(2))
    assert torch.equal(first, again)


def test_a_share_that_chooses_no_row_changes_nothing(generator: torch.Generator) -> None:
    """An early version transformed the empty batch, which MKL refuses."""
    rows = torch.randn(2, 3000)
    lengths = torch.full((2,), 3000)
    for share in (0.0, 1e-9):
        assert torch.equal(augment.random_low_pass(rows, share, 16000, generator), rows)
        assert torch.equal(augment.random_high_pass(rows, share, 16000, generator), rows)
        assert torch.equal(augment.random_noise(rows, lengths, share, (5.0, 9.0), generator), rows)
        assert torch.equal(
            augment.random_background(rows, lengths, torch.eye(2), share, (5.0, 9.0), generator)[0], rows
        )


def test_the_draws_of_the_first_recipes_stay_as_they_were() -> None:
    """The bundled models' recipes reproduce only as long as nothing else is drawn, nor in another order."""
    generator = torch.Generator().manual_seed(11)
    waveforms = torch.sin(torch.arange(4 * 4000).reshape(4, 4000) / 7.0)
    lengths = torch.tensor([4000, 4000, 900, 4000])
    placed, length = augment.place(waveforms[0, :500], 4000, generator)
    waveforms = augment.random_roll(waveforms, lengths, generator)
    waveforms = augment.random_gain(waveforms, 6.0, generator)
    waveforms = augment.random_low_pass(waveforms, 0.5, 16000, generator)
    waveforms, lengths, wanted = augment.mix_up(waveforms, lengths, torch.eye(4), 0.5, 10.0, generator)
    masked = augment.mask_spectrogram(torch.ones(4, 40, 30), 12, 20, generator)
    assert (length, int(placed.nonzero()[0])) == (4000, 2791)
    assert waveforms.square().mean(1).tolist() == pytest.approx([0.629356, 0.1644025, 0.6101606, 1.6164707])
    assert wanted.sum(0).tolist() == pytest.approx([1, 0.4097093, 1.5902907, 1])
    assert masked.sum((1, 2)).tolist() == [630, 696, 682, 624]
    assert float(torch.rand((), generator=generator)) == pytest.approx(0.8002142)


def _everything(waveforms: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
    """Every augmentation in turn."""
    rows, samples = waveforms.shape
    lengths = torch.full((rows,), samples, device=waveforms.device)
    targets = torch.eye(rows, device=waveforms.device)
    results = [augment.place(waveforms[0, :100], samples, generator)[0]]
    results.append(augment.random_roll(waveforms, lengths, generator))
    results.append(augment.random_gain(waveforms, 6.0, generator))
    results.append(augment.random_low_pass(waveforms, 0.9, 16000, generator))
    results.append(augment.random_high_pass(waveforms, 0.9, 16000, generator))
    results += augment.mix_up(waveforms, lengths, targets, 0.9, 10.0, generator)
    results += augment.mix_up_with(waveforms, lengths, targets, waveforms, lengths, targets, 0.9, 10.0, generator)
    results += augment.random_background(waveforms, lengths, targets, 0.9, (5.0, 9.0), generator)
    results.append(augment.random_noise(waveforms, lengths, 0.9, (5.0, 9.0), generator))
    log_mel = waveforms[:, :2400].reshape(rows, 80, 30)
    results.append(augment.warp_time(log_mel, 5, generator))
    results.append(augment.mask_spectrogram(log_mel, 10, 20, generator))
    results.append(augment.noise_and_shift(log_mel, generator))
    return results


def test_a_batch_stays_on_its_device_with_a_generator_of_the_cpu() -> None:
    """The meta device refuses to be mixed with the CPU, as a GPU would."""
    for result in _everything(torch.empty(6, 3000, device="meta"), torch.Generator().manual_seed(0)):
        assert result.device.type == "meta"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    waveforms = torch.randn(6, 3000, generator=torch.Generator().manual_seed(0)) * 0.1
    here, there = (_everything(waveforms.to(device), torch.Generator().manual_seed(0)) for device in ("cpu", "cuda"))
    for expected, result in zip(here, there, strict=True):
        assert result.device.type == "cuda"
        torch.testing.assert_close(result.cpu(), expected, atol=1e-5, rtol=1e-4)


def test_the_documents_picture_can_be_drawn() -> None:
    panels = runpy.run_path(str(ROOT / ".ci" / "augmentations.py"))["panels"]()
    assert len({tuple(panel.flatten().tolist()) for panel in panels.values()}) == len(panels) == 16
