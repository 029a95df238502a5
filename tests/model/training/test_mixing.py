"""Sounds are mixed at the shares and levels that were asked for, with the labels that were asked for."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Generator, Tensor

from model.features import AUDIOSET_FBANK, LogMel
from model.training.mixing import mix_up_with, mix_waveforms, random_background, random_noise
from tests.golden import load_golden


@pytest.fixture
def generator() -> Generator:
    return Generator().manual_seed(7)


def _sounds(rows: int, samples: int = 16000) -> Tensor:
    return torch.randn(rows, samples, generator=Generator().manual_seed(1)) * 0.1


def _full(waveforms: Tensor) -> Tensor:
    return torch.full((len(waveforms),), waveforms.shape[1])


def _decibels(signal: Tensor, noise: Tensor) -> Tensor:
    return 10 * torch.log10(signal.square().sum(-1) / noise.square().sum(-1))


@pytest.mark.parametrize("case", ["second_longer", "second_shorter"])
def test_mix_up_is_the_official_one(case: str) -> None:
    golden = load_golden("frontend_mixup")
    first, second = golden[f"{case}.waveform1"], golden[f"{case}.waveform2"]
    samples = max(len(first), len(second))
    rows = torch.zeros(2, samples)
    rows[0, : len(first)], rows[1, : len(second)] = first, second
    lengths = torch.tensor([len(first), len(second)])
    share = golden[f"{case}.lambda"].float().reshape(1, 1)
    mixed = mix_waveforms(rows[:1], lengths[:1], rows[1:], lengths[1:], share)
    features = LogMel(replace(AUDIOSET_FBANK, frames=128, subtract_waveform_mean=True))
    torch.testing.assert_close(features.unnormalised(mixed, lengths[:1])[0], golden[f"{case}.fbank"], atol=2e-3, rtol=0)


def test_mix_up_with_partners_mixes_labels_by_the_same_share_and_keeps_lengths(generator: Generator) -> None:
    waveforms, partners = torch.eye(400, 8)[:, :8].roll(3, 1), torch.zeros(400, 8)
    targets, other = torch.tensor([[1.0, 0, 1]]).expand(400, 3), torch.tensor([[0.0, 1, 1]]).expand(400, 3)
    lengths = torch.full((400,), 8)
    _, same_lengths, wanted = mix_up_with(waveforms, lengths, targets, partners, lengths, other, 0.5, 10.0, generator)
    assert torch.equal(same_lengths, lengths)
    assert torch.allclose(wanted[:, :2].sum(1), torch.ones(400))
    assert torch.allclose(wanted[:, 2], torch.ones(400))  # both carry it
    mixed = wanted[:, 1] > 0
    assert 150 < int(mixed.sum()) < 250
    assert 0.45 < float(wanted[mixed, 0].mean()) < 0.55
    assert 0.08 < float(wanted[mixed, 0].std()) < 0.14  # of Beta(10, 10): 0.109


def test_mix_up_with_partners_mixes_sounds_as_it_mixes_labels(generator: Generator) -> None:
    waveforms, partners = _sounds(8).split(4)
    lengths = _full(waveforms)
    ones, zeros = torch.ones(4, 1), torch.zeros(4, 1)
    mixed, _, wanted = mix_up_with(waveforms, lengths, ones, partners, lengths, zeros, 1.0, 10.0, generator)
    centred = [sound - sound.mean(1, keepdim=True) for sound in (waveforms, partners)]
    torch.testing.assert_close(mixed, wanted * centred[0] + (1 - wanted) * centred[1], atol=1e-6, rtol=0)


def test_a_partner_is_cut_where_the_row_ends(generator: Generator) -> None:
    waveforms, partners = _sounds(2, 100).split(1)
    short = torch.tensor([60])
    waveforms[:, 60:] = 0
    mixed, lengths, _ = mix_up_with(
        waveforms, short, torch.ones(1, 1), partners, torch.tensor([100]), torch.ones(1, 1), 1.0, 10.0, generator
    )
    assert not mixed[0, 60:].any()
    assert mixed[0, :60].abs().min() > 0
    assert lengths.tolist() == [60]
    assert abs(float(mixed[0, :60].mean())) < 1e-7


def test_noise_has_the_level_that_was_asked_for(generator: Generator) -> None:
    waveforms = _sounds(20) * torch.linspace(0.01, 3, 20)[:, None]
    lengths = torch.full((20,), 12000)
    waveforms[:, 12000:] = 0
    noisy = random_noise(waveforms, lengths, 1.0, (10.0, 20.0), generator)
    levels = _decibels(waveforms, noisy - waveforms)
    assert float(levels.min()) >= 10 - 1e-2
    assert float(levels.max()) <= 20 + 1e-2
    assert float(levels.std()) > 1
    assert not noisy[:, 12000:].any()


def test_noise_is_white_in_some_rows_and_pink_in_others(generator: Generator) -> None:
    """Pink noise has as much power in each octave; white twice as much in each as in the one below."""
    waveforms = _sounds(40)
    noise = random_noise(waveforms, _full(waveforms), 1.0, (0.0, 0.0), generator) - waveforms
    power = torch.fft.rfft(noise).abs().square()  # bins of 1 Hz
    octaves = torch.stack([power[:, 1000:2000].sum(1), power[:, 2000:4000].sum(1)])
    rises = (octaves[1] / octaves[0]).log2()
    white, pink = rises > 0.5, rises <= 0.5
    assert 10 < int(white.sum()) < 30
    assert float(rises[white].mean()) == pytest.approx(1, abs=0.1)
    assert float(rises[pink].mean()) == pytest.approx(0, abs=0.1)


def test_noise_takes_its_share_of_rows_and_leaves_silence_silent(generator: Generator) -> None:
    waveforms = _sounds(200, 64)
    waveforms[:50] = 0
    noisy = random_noise(waveforms, _full(waveforms), 0.3, (10.0, 20.0), generator)
    assert torch.equal(noisy[:50], waveforms[:50])
    changed = (noisy[50:] != waveforms[50:]).any(1)
    assert 0.2 < float(changed.float().mean()) < 0.4


def test_a_background_is_another_row_at_the_level_asked_for_without_its_labels(generator: Generator) -> None:
    waveforms, targets = _sounds(6), torch.eye(6)
    mixed, unsure = random_background(waveforms, _full(waveforms), targets, 1.0, (12.0, 12.0), generator)
    added = mixed - waveforms
    torch.testing.assert_close(_decibels(waveforms, added), torch.full((6,), 12.0), atol=0.01, rtol=0)
    likeness = torch.nn.functional.cosine_similarity(added[:, None], waveforms[None], dim=2)
    for row in range(6):
        partner = int(likeness[row].argmax())
        assert partner != row
        assert likeness[row, partner] > 0.99
        assert unsure[row].nonzero().flatten().tolist() == [partner]


def test_a_label_that_both_carry_is_sure_and_so_are_rows_without_a_background(generator: Generator) -> None:
    waveforms = _sounds(100, 32)
    _, unsure = random_background(waveforms, _full(waveforms), torch.ones(100, 2), 1.0, (10.0, 10.0), generator)
    assert not unsure.any()
    mixed, unsure = random_background(waveforms, _full(waveforms), torch.eye(100), 0.5, (10.0, 10.0), generator)
    changed = (mixed != waveforms).any(1)
    assert torch.equal(changed, unsure.any(1))
    assert 30 < int(changed.sum()) < 70


def test_a_single_row_has_no_background(generator: Generator) -> None:
    waveforms = _sounds(1, 32)
    mixed, unsure = random_background(waveforms, _full(waveforms), torch.ones(1, 2), 1.0, (0.0, 0.0), generator)
    assert torch.equal(mixed, waveforms)
    assert not unsure.any()


Drawing = Callable[[Tensor, Tensor, float, Generator], object]
DRAWINGS: dict[str, Drawing] = {
    "mix_up_with": lambda w, n, share, g: mix_up_with(w, n, torch.eye(len(w)), w, n, torch.eye(len(w)), share, 10.0, g),
    "random_background": lambda w, n, share, g: random_background(w, n, torch.eye(len(w)), share, (5.0, 9.0), g),
    "random_noise": lambda w, n, share, g: (random_noise(w, n, share, (5.0, 9.0), g),),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_same_seed_gives_the_same_and_a_share_of_0_draws_nothing(name: str) -> None:
    waveforms = _sounds(5, 400)
    first, again, other = (
        DRAWINGS[name](waveforms, _full(waveforms), 0.8, Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first[0], again[0])  # type: ignore[index]
    assert not torch.equal(first[0], other[0])  # type: ignore[index]
    generator = Generator().manual_seed(3)
    kept = DRAWINGS[name](waveforms, _full(waveforms), 0.0, generator)
    assert torch.equal(kept[0], waveforms)  # type: ignore[index]
    assert torch.equal(generator.get_state(), Generator().manual_seed(3).get_state())
