r"""Banks of triangular mel filters: Kaldi's (linear in mel) and the HTK-scale bank of SSAM (linear in Hz).

Both place F neighbouring triangles evenly on the scale mel = 1127 ln(1 + Hz / 700), each with peak 1:

    weight 1     /\  /\  /\           triangle f rises from edge f to 1 at edge f + 1
                /  \/  \/  \          and falls to 0 at edge f + 2
               /   /\  /\   \
    edge      0   1   2   3   4       F + 2 edges, from the lowest frequency to half the sample rate
"""

import torch
from torch import Tensor

KALDI_LOWEST_HZ = 20.0  # Kaldi's --low-freq default
HTK_LOWEST_HZ = 50.0  # SarthakYadav/audio-mamba-official


def kaldi_mel_filters(mels: int, fft_samples: int, sample_rate: int) -> Tensor:
    """Return Kaldi's mel filters (fft_samples // 2 + 1, F) float64; the bin at half the sample rate is not used.

    With 128 mels and 512 samples filter 3 lies between two bins and is empty, as in the published front ends.
    """
    bins_hz = torch.arange(fft_samples // 2 + 1, dtype=torch.float64) * (sample_rate / fft_samples)
    filters = _triangles(_hz_to_mel(bins_hz), _mel_edges(KALDI_LOWEST_HZ, sample_rate, mels))
    filters[-1] = 0.0
    return filters


def htk_mel_filters(mels: int, fft_samples: int, sample_rate: int) -> Tensor:
    """Return filters (fft_samples // 2 + 1, F) float64 linear in Hz, without area normalisation."""
    bins_hz = torch.arange(fft_samples // 2 + 1, dtype=torch.float64) * (sample_rate / fft_samples)
    return _triangles(bins_hz, _mel_to_hz(_mel_edges(HTK_LOWEST_HZ, sample_rate, mels)))


def _hz_to_mel(hz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hz / 700.0)


def _mel_to_hz(mel: Tensor) -> Tensor:
    return 700.0 * torch.expm1(mel / 1127.0)


def _mel_edges(lowest_hz: float, sample_rate: int, mels: int) -> Tensor:
    """Return the F + 2 corners of F triangles, evenly spaced in mel: (F + 2,)."""
    lowest, highest = _hz_to_mel(torch.tensor([lowest_hz, sample_rate / 2], dtype=torch.float64)).tolist()
    return torch.linspace(lowest, highest, mels + 2, dtype=torch.float64)


def _triangles(positions: Tensor, edges: Tensor) -> Tensor:
    """Weigh bins at `positions` (K,) by the triangles between `edges` (F + 2,): (K, F)."""
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (positions[:, None] - left) / (centre - left)
    falling = (right - positions[:, None]) / (right - centre)
    return torch.minimum(rising, falling).clamp_min(0.0)
