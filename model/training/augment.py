"""Augmentation on whole batches in torch, drawn from one seeded generator, whatever device the batch is on.

    place → roll, gain, low-pass, high-pass → mix-up → background, noise
          → log-mel → warp, masks → normalise → noise and shift

Waveforms are (B, S) with the valid samples of each row in `lengths` (B,); log-mel is (B, T, F), before normalisation:
SpecAugment, whose masks hold zero there, as in AST's training (YuanGongND/ast:src/dataloader.py, BSD-3-Clause).
What adds sound to sound is in `mixing.py`. A function draws nothing where its share or size is 0, except those that
the first recipes were trained with: their draws stay as they were.
"""

import torch
from torch import Generator, Tensor

from model.training.chances import chosen_rows, mixing_shares, uniform
from model.training.mixing import mix_up_with, random_background, random_noise

__all__ = [
    "mask_spectrogram",
    "mix_up",
    "mix_up_with",
    "noise_and_shift",
    "place",
    "random_background",
    "random_gain",
    "random_high_pass",
    "random_low_pass",
    "random_noise",
    "random_roll",
    "rotate",
    "uniform",
    "warp_time",
]


def place(waveform: Tensor, samples: int, generator: Generator | None) -> tuple[Tensor, int]:
    """Cut or zero-pad (S,) to `samples`; returns it with its length before padding.

    Without a generator the sound stands at the start. With one the cut is random, and half of the short sounds stand
    somewhere in silence that counts as sound, as in a recording; the others at the start of a window that ends early,
    as in a short file.
    """
    spare = len(waveform) - samples
    shift = int(torch.randint(0, abs(spare) + 1, (1,), generator=generator)) if generator is not None else 0
    if spare >= 0:
        return waveform[shift : shift + samples], samples
    in_silence = generator is not None and bool(torch.rand((), generator=generator) < 0.5)
    start = shift if in_silence else 0
    placed = waveform.new_zeros(samples)
    placed[start : start + len(waveform)] = waveform
    return placed, samples if in_silence else len(waveform)


def random_gain(waveforms: Tensor, decibels: float, generator: Generator) -> Tensor:
    """Scale each row by a gain drawn uniformly from ±`decibels`."""
    gains = uniform((len(waveforms), 1), -decibels, decibels, generator)
    return waveforms * (10 ** (gains / 20)).to(waveforms.device)


def random_low_pass(waveforms: Tensor, share: float, sample_rate: int, generator: Generator) -> Tensor:
    """Remove what is above a random 2 to 7.5 kHz from a `share` of the rows, so that bandwidth betrays no source."""
    chosen = chosen_rows(len(waveforms), share, generator)
    if not chosen.any():
        return waveforms
    cut_hz = uniform((len(waveforms), 1), 2000, 7500, generator)[chosen]
    return _filter(waveforms, chosen, torch.sigmoid((cut_hz - _bins_hz(waveforms, sample_rate, generator)) / 100))


def random_high_pass(waveforms: Tensor, share: float, sample_rate: int, generator: Generator) -> Tensor:
    """Remove what is below a random 50 to 500 Hz from a `share` of the rows, as small loudspeakers do."""
    if not share:
        return waveforms
    chosen = chosen_rows(len(waveforms), share, generator)
    cut_hz = uniform((len(waveforms), 1), 50, 500, generator)[chosen]
    return _filter(waveforms, chosen, torch.sigmoid((_bins_hz(waveforms, sample_rate, generator) - cut_hz) / 10))


def _bins_hz(waveforms: Tensor, sample_rate: int, generator: Generator) -> Tensor:
    return torch.fft.rfftfreq(waveforms.shape[1], 1 / sample_rate, device=generator.device)


def _filter(waveforms: Tensor, chosen: Tensor, gains: Tensor) -> Tensor:
    """Multiply the spectra of the chosen rows (n of B) by `gains` (n, bins)."""
    rows = chosen.nonzero()[:, 0].to(waveforms.device)
    if not len(rows):  # MKL transforms no empty batch
        return waveforms
    spectrum = torch.fft.rfft(waveforms[rows]) * gains.to(waveforms.device)
    return waveforms.index_copy(0, rows, torch.fft.irfft(spectrum, n=waveforms.shape[1]))


def random_roll(waveforms: Tensor, lengths: Tensor, generator: Generator) -> Tensor:
    """Rotate each row whose sound fills it by a random amount."""
    samples = waveforms.shape[1]
    shifts = torch.randint(0, samples, (len(waveforms), 1), generator=generator, device=generator.device)
    shifts = torch.where(lengths[:, None] == samples, shifts.to(lengths.device), 0)
    return rotate(waveforms, shifts)


def rotate(rows: Tensor, shifts: Tensor) -> Tensor:
    """Rotate each row of (B, S) to the left by its shift (B, 1)."""
    positions = torch.arange(rows.shape[1], device=rows.device) + shifts.to(rows.device)
    return rows.gather(1, positions % rows.shape[1])


def mix_up(
    waveforms: Tensor,
    lengths: Tensor,
    targets: Tensor,
    probability: float,
    concentration: float,
    generator: Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """With `probability` per row, mix it with another row: shares from Beta(concentration, concentration).

    Returns (waveforms, lengths, targets); a label that both rows carry keeps its full value. `mixing.mix_up_with` is
    the papers' own mix-up, whose partners are not rows of the batch.
    """
    partner = torch.randperm(len(waveforms), generator=generator, device=generator.device)
    mixed, share = mixing_shares(len(waveforms), probability, concentration, generator)
    partner, mixed, share = (drawn.to(waveforms.device) for drawn in (partner, mixed, share))
    return (
        share * waveforms + (1 - share) * waveforms[partner],
        torch.where(mixed, torch.maximum(lengths, lengths[partner]), lengths),
        (share * targets + (1 - share) * targets[partner]).clamp(max=1),
    )


def mask_spectrogram(log_mel: Tensor, mels: int, frames: int, generator: Generator) -> Tensor:
    """SpecAugment: one mel and one time mask per row, each of random width; masked cells hold 0."""
    rows, times, bands = log_mel.shape
    for axis, size, widest in ((1, times, frames), (2, bands, mels)):
        width = (uniform((rows,), 0, 1, generator) * widest).long()
        start = (uniform((rows,), 0, 1, generator) * (size - width)).long()
        cells = torch.arange(size, device=generator.device)
        hidden = (cells >= start[:, None]) & (cells < (start + width)[:, None])  # (B, size)
        hidden = hidden.to(log_mel.device)
        log_mel = log_mel.masked_fill(hidden[:, :, None] if axis == 1 else hidden[:, None, :], 0.0)
    return log_mel


def warp_time(log_mel: Tensor, frames: int, generator: Generator) -> Tensor:
    """SpecAugment's time warp: in each row a random frame moves by up to `frames`, what lies around it stretches.

    arXiv 1904.08779, section 2. A spectrogram of at most 2 * `frames` frames is returned as it is.
    """
    rows, times, _ = log_mel.shape
    if not frames or times <= 2 * frames:
        return log_mel
    last = times - 1
    source = uniform((rows, 1), frames, last - frames, generator)
    target = source + uniform((rows, 1), -frames, frames, generator)
    cells = torch.arange(times, device=generator.device)
    before = cells * source / target
    behind = last - (last - cells) * (last - source) / (last - target)
    return _interpolate(log_mel, torch.where(cells < target, before, behind).clamp(0, last).to(log_mel.device))


def _interpolate(log_mel: Tensor, positions: Tensor) -> Tensor:
    """Frames of (B, T, F) at fractional `positions` (B, T) in [0, T - 1]."""
    lower = positions.floor().long()
    upper = (lower + 1).clamp(max=log_mel.shape[1] - 1)
    weight = (positions - lower)[:, :, None]
    low, high = (log_mel.gather(1, at[:, :, None].expand_as(log_mel)) for at in (lower, upper))
    return low + weight * (high - low)


def noise_and_shift(log_mel: Tensor, generator: Generator) -> Tensor:
    """Noise in [0, 0.1) per cell, scaled by one number in [0, 1) per row, then a rotation by -10 to 9 frames.

    For normalised log-mel; the noise augmentation of AST's and SSAST's Speech Commands recipes
    (YuanGongND/ast:src/dataloader.py, BSD-3-Clause).
    """
    rows, times, bands = log_mel.shape
    noise = uniform((rows, times, bands), 0, 1, generator) * uniform((rows, 1, 1), 0, 0.1, generator)
    shifts = torch.randint(-10, 10, (rows, 1), generator=generator, device=generator.device)
    noisy = log_mel + noise.to(log_mel.device)
    positions = (torch.arange(times, device=log_mel.device) - shifts.to(log_mel.device)) % times  # (B, T)
    return noisy.gather(1, positions[:, :, None].expand_as(noisy))
