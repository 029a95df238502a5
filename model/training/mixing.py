"""Augmentation that adds sound to sound: the papers' mix-up, another clip as background, and noise.

Rows are (B, S) with their valid samples in `lengths` (B,), and 0 behind them; what is added ends where the row's own
sound ends. Levels are signal-to-noise ratios over the valid samples. Everything is drawn from one seeded generator, and
nothing where the share is 0.
"""

import torch
from torch import Generator, Tensor

from model.training.chances import chosen_rows, mixing_shares, uniform

Decibels = tuple[float, float]
"""The lowest and the highest signal-to-noise ratio that may be drawn."""


def mix_up_with(
    waveforms: Tensor,
    lengths: Tensor,
    targets: Tensor,
    partners: Tensor,
    partner_lengths: Tensor,
    partner_targets: Tensor,
    probability: float,
    concentration: float,
    generator: Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Mix-up as AST, AuM and SSAST train with it: with `probability` per row, mix it with its row of `partners`.

    Partners (B, S) and their targets (B, C) are drawn by the caller, uniformly over the corpus even where sampling is
    balanced. Returns (waveforms, lengths, targets); a mixed row keeps its length, whatever its partner's, and a label
    that both carry reaches 1. Source: YuanGongND/ast:src/dataloader.py, BSD-3-Clause.
    """
    if not probability:
        return waveforms, lengths, targets
    drawn = mixing_shares(len(waveforms), probability, concentration, generator)
    mixed, share = (values.to(waveforms.device) for values in drawn)
    sounds = mix_waveforms(waveforms, lengths, partners, partner_lengths, share)
    wanted = (share * targets + (1 - share) * partner_targets).clamp(max=1)
    return torch.where(mixed[:, None], sounds, waveforms), lengths, wanted


def mix_waveforms(
    first: Tensor, first_lengths: Tensor, second: Tensor, second_lengths: Tensor, share: Tensor
) -> Tensor:
    """`share` (B, 1) of `first` and the rest of `second`, each without its mean, over the first's valid samples."""
    valid = _valid(first, first_lengths)
    mixed = share * _centred(first, first_lengths) + (1 - share) * _centred(second, second_lengths)
    return _centred(mixed.masked_fill(~valid, 0), first_lengths)


def random_background(
    waveforms: Tensor, lengths: Tensor, targets: Tensor, share: float, decibels: Decibels, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Play another row's sound behind a `share` of the rows, without its labels; use it after mix-up.

    Returns (waveforms, unsure (B, C) bool). A label is `unsure` where only the background carries it: it may be heard,
    yet nobody asserts it, so the loss should leave that cell out. Keep `decibels` well above 0 where it cannot.
    """
    unsure = torch.zeros_like(targets, dtype=torch.bool)
    rows = len(waveforms)
    if not share or rows < 2:
        return waveforms, unsure
    chosen = chosen_rows(rows, share, generator).to(waveforms.device)
    ratios = uniform((rows, 1), *decibels, generator)
    shift = int(torch.randint(1, rows, (1,), generator=generator, device=generator.device))
    loud = _add_at(waveforms, waveforms.roll(shift, 0), lengths, ratios)
    unsure = chosen[:, None] & (targets.roll(shift, 0) > 0) & (targets == 0)
    return torch.where(chosen[:, None], loud, waveforms), unsure


def random_noise(waveforms: Tensor, lengths: Tensor, share: float, decibels: Decibels, generator: Generator) -> Tensor:
    """Add noise to a `share` of the rows: white in half of them, pink (equal power per octave) in the others."""
    if not share:
        return waveforms
    chosen = chosen_rows(len(waveforms), share, generator)
    ratios = uniform((len(waveforms), 1), *decibels, generator)[chosen]
    pink = chosen_rows(len(waveforms), 0.5, generator)[chosen]
    rows = chosen.nonzero()[:, 0].to(waveforms.device)
    if not len(rows):
        return waveforms
    shape = (len(rows), waveforms.shape[1])
    noise = _coloured(torch.randn(shape, generator=generator, device=generator.device), pink)
    noisy = _add_at(waveforms[rows], noise.to(waveforms.device), lengths.to(waveforms.device)[rows], ratios)
    return waveforms.index_copy(0, rows, noisy)


def _coloured(white: Tensor, pink: Tensor) -> Tensor:
    """White noise (n, S), made pink in the marked rows (n,): power falls with frequency."""
    spectrum = torch.fft.rfft(white)
    bins = torch.arange(spectrum.shape[1], device=white.device).clamp(min=1)
    return torch.fft.irfft(torch.where(pink[:, None], spectrum / bins.sqrt(), spectrum), n=white.shape[1])


def _add_at(waveforms: Tensor, added: Tensor, lengths: Tensor, ratios: Tensor) -> Tensor:
    """Add sound at signal-to-noise ratios (B, 1) in decibels; silence stays silent."""
    added = added.masked_fill(~_valid(waveforms, lengths), 0)
    signal, noise = (sound.square().sum(1, keepdim=True) for sound in (waveforms, added))
    gains = (signal / (noise * 10 ** (ratios.to(waveforms.device) / 10))).sqrt()
    return waveforms + added * torch.where(noise > 0, gains, 0.0)


def _centred(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Rows without the mean of their valid samples, and 0 behind them."""
    valid = _valid(waveforms, lengths)
    counts = valid.sum(1, keepdim=True).clamp(min=1)
    means = waveforms.masked_fill(~valid, 0).sum(1, keepdim=True) / counts
    return (waveforms - means).masked_fill(~valid, 0)


def _valid(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Mark each row's valid samples: (B, S) bool."""
    return torch.arange(waveforms.shape[1], device=waveforms.device) < lengths.to(waveforms.device)[:, None]
