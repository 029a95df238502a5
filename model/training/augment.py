"""Augmentation on whole batches in torch, drawn from one seeded generator.

Waveforms (B, S): random placement, gain, low-pass, roll and mix-up. Log-mel (B, T, F) before normalisation:
SpecAugment, whose masks hold zero there, as in AST's training (YuanGongND/ast:src/dataloader.py, BSD-3-Clause).
"""

import torch
from torch import Generator, Tensor


def uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    """Uniform float32 numbers in [low, high)."""
    return torch.rand(shape, generator=generator) * (high - low) + low


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
    placed = torch.zeros(samples)
    placed[start : start + len(waveform)] = waveform
    return placed, samples if in_silence else len(waveform)


def random_gain(waveforms: Tensor, decibels: float, generator: Generator) -> Tensor:
    """Scale each row by a gain drawn uniformly from ±`decibels`."""
    gains = uniform((len(waveforms), 1), -decibels, decibels, generator)
    return waveforms * 10 ** (gains / 20)


def random_low_pass(waveforms: Tensor, share: float, sample_rate: int, generator: Generator) -> Tensor:
    """Remove what is above a random 2 to 7.5 kHz from a `share` of the rows, so that bandwidth betrays no source."""
    chosen = torch.rand(len(waveforms), generator=generator) < share
    if not chosen.any():
        return waveforms
    cut_hz = uniform((len(waveforms), 1), 2000, 7500, generator)
    spectrum = torch.fft.rfft(waveforms[chosen])
    hz = torch.fft.rfftfreq(waveforms.shape[1], 1 / sample_rate)
    spectrum = spectrum * torch.sigmoid((cut_hz[chosen] - hz) / 100)
    result = waveforms.clone()
    result[chosen] = torch.fft.irfft(spectrum, n=waveforms.shape[1])
    return result


def random_roll(waveforms: Tensor, lengths: Tensor, generator: Generator) -> Tensor:
    """Rotate each row whose sound fills it by a random amount."""
    samples = waveforms.shape[1]
    shifts = torch.randint(0, samples, (len(waveforms), 1), generator=generator)
    shifts = torch.where(lengths[:, None] == samples, shifts, 0)
    return waveforms.gather(1, (torch.arange(samples) + shifts) % samples)


def mix_up(
    waveforms: Tensor,
    lengths: Tensor,
    targets: Tensor,
    probability: float,
    concentration: float,
    generator: Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """With `probability` per row, mix it with another row: shares from Beta(concentration, concentration).

    Returns (waveforms, lengths, targets); a label that both rows carry keeps its full value.
    """
    rows = len(waveforms)
    partner = torch.randperm(rows, generator=generator)
    gammas = torch._standard_gamma(torch.full((2, rows), concentration), generator=generator)
    mixed = torch.rand(rows, generator=generator) < probability
    share = torch.where(mixed, gammas[0] / gammas.sum(0), 1.0)[:, None]
    return (
        share * waveforms + (1 - share) * waveforms[partner],
        torch.where(mixed, torch.maximum(lengths, lengths[partner]), lengths),
        (share * targets + (1 - share) * targets[partner]).clamp(max=1),
    )


def mask_spectrogram(log_mel: Tensor, mels: int, frames: int, generator: Generator) -> Tensor:
    """SpecAugment: one mel and one time mask per row, each of random width; masked cells hold 0."""
    _, times, bands = log_mel.shape
    for axis, size, widest in ((1, times, frames), (2, bands, mels)):
        width = (torch.rand(len(log_mel), generator=generator) * widest).long()
        start = (torch.rand(len(log_mel), generator=generator) * (size - width)).long()
        cells = torch.arange(size)
        hidden = (cells >= start[:, None]) & (cells < (start + width)[:, None])  # (B, size)
        log_mel = log_mel.masked_fill(hidden[:, :, None] if axis == 1 else hidden[:, None, :], 0.0)
    return log_mel
