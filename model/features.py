"""Waveforms to normalised log-mel, batched, on any device: Kaldi's fbank (AST, AuM, SSAST) and SSAM's log-mel.

Both recipes are re-derived from the published settings: Kaldi's feature-fbank (as torchaudio.compliance.kaldi reads it)
with the options of YuanGongND/ast:src/dataloader.py, and SarthakYadav/audio-mamba-official's log-mel.

Each row of a batch has its own number of valid samples; what lies behind them never reaches its frames:

    row         |<------- valid samples ------->|0 0 0 0 0 0 0|      (B, S)
    fbank       [ 400 ]  whole frames only      |             |      1 + (n - 400) // 160
                  [ 400 ]                       |             |
                       ...             [  400  ]|             |
                ^^^^ zero rows up to `frames` ^^^^ then (x - mean) / (2 std): padding holds -mean / (2 std)

    log_mel  ~~~|<------- valid samples ------->|~~~                 1 + n // 160
             200 samples mirrored at each end of the valid part (~); the row is standardised over all its own frames,
             then cut to `frames` or filled up with zeros, which now is the row's mean

SSAM's published networks see 200 frames, so they are served 2 s windows (201 frames, the last is cut), each
standardised by itself; a shorter clip is filled up with zeros, as in its feature extraction. Its pre-training works on
whole clips: take `frames` large enough for them, then crop, or tile the short ones, after normalising.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.mel_filters import htk_mel_filters, kaldi_mel_filters

SAMPLE_RATE = 16000
STFT_WINDOW_SAMPLES = 400  # 25 ms, in both recipes
STFT_HOP_SAMPLES = 160  # 10 ms
FBANK_FFT_SAMPLES = 512  # Kaldi rounds the STFT window up to a power of two
FBANK_PREEMPHASIS = 0.97
LOG_MEL_MIRRORED_SAMPLES = 200  # half an STFT window: frames are centred on multiples of the hop
LOG_FLOOR = 1.1920928955078125e-07  # float32 machine epsilon; fbank takes max(x, floor), log_mel takes x + floor
STANDARDISE_FLOOR = 1e-8


@dataclass(frozen=True)
class FeatureConfig:
    """How a checkpoint turns a waveform into log-mel; saved with it and compared strictly when loaded.

    `kind` names the recipe. `frames` is T, the number of frames the network sees: longer windows are cut, shorter ones
    padded. `mean` and `std` are the training set's statistics for "fbank", where log-mel becomes
    (x - mean) / (2 std); for "log_mel" both are None, because each waveform is standardised by its own mean and
    deviation. `subtract_waveform_mean` centres the valid samples first, as AST's training code does (its inference
    script does not). `unbiased_std` divides by n - 1 in "log_mel": SSAM's feature extraction does, its pre-training
    does not.

    Raises: ValueError when a value is impossible or does not suit the recipe.
    """

    kind: Literal["fbank", "log_mel"]
    sample_rate: int = SAMPLE_RATE
    mels: int = 128
    frames: int = 1024
    mean: float | None = None
    std: float | None = None
    subtract_waveform_mean: bool = False
    unbiased_std: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("fbank", "log_mel"):
            raise ValueError(f"Feature kind must be 'fbank' or 'log_mel', not {self.kind!r}.")
        if self.sample_rate != SAMPLE_RATE:
            raise ValueError(f"Both feature recipes are defined at {SAMPLE_RATE} Hz, not at {self.sample_rate!r} Hz.")
        for name in ("mels", "frames"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"Feature setting {name} must be a whole number of at least 1, not {value!r}.")
        for name in ("subtract_waveform_mean", "unbiased_std"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"Feature setting {name} must be true or false, not {getattr(self, name)!r}.")
        self._check_statistics()

    def _check_statistics(self) -> None:
        if self.kind == "log_mel":
            if self.mean is not None or self.std is not None:
                raise ValueError("The log_mel recipe standardises each waveform by itself: mean and std must be None.")
            if self.subtract_waveform_mean:
                raise ValueError("The log_mel recipe does not subtract the waveform's mean.")
            return
        for name in ("mean", "std"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                raise ValueError(f"The fbank recipe needs a finite number as {name}, not {value!r}.")
        if self.std is not None and self.std <= 0:
            raise ValueError(f"The fbank recipe needs a std above 0, not {self.std!r}.")

    @property
    def window_samples(self) -> int:
        """The fewest samples that fill `frames` frames without padding."""
        between_first_and_last = (self.frames - 1) * STFT_HOP_SAMPLES
        if self.kind == "fbank":
            return between_first_and_last + STFT_WINDOW_SAMPLES
        return max(between_first_and_last, LOG_MEL_MIRRORED_SAMPLES + 1)

    def to_dict(self) -> dict[str, Any]:
        """Return every setting under its name, as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> FeatureConfig:
        """Read what `to_dict` wrote.

        Raises: ValueError naming the settings that are unknown or missing, or the one whose value is impossible.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(settings.keys() - known):
            raise ValueError(f"Unknown feature settings: {', '.join(unknown)}.")
        if missing := sorted(known - settings.keys()):
            raise ValueError(f"Missing feature settings: {', '.join(missing)}.")
        return cls(**settings)


# Published statistics of the fbank recipe. YuanGongND/ast#5 explains the division by twice the deviation.
AUDIOSET_FBANK = FeatureConfig("fbank", frames=1024, mean=-4.2677393, std=4.5689974)
ESC50_FBANK = FeatureConfig("fbank", frames=512, mean=-6.6268077, std=5.358466)
SPEECH_COMMANDS_FBANK = FeatureConfig("fbank", frames=128, mean=-6.845978, std=5.5654526)
VGGSOUND_FBANK = FeatureConfig("fbank", frames=1024, mean=-5.0767093, std=4.4533687)
VOXCELEB_FBANK = FeatureConfig("fbank", frames=1024, mean=-3.7614744, std=4.2011642)
SSAM_LOG_MEL = FeatureConfig("log_mel", mels=80, frames=200)


class LogMel(nn.Module):
    """Waveforms to the normalised log-mel that a network sees; has no weights and saves nothing."""

    stft_window: Tensor
    mel_filters: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        stft_window, filters = _fbank_tables(config.mels) if config.kind == "fbank" else _log_mel_tables(config.mels)
        self.register_buffer("stft_window", stft_window.float(), persistent=False)
        self.register_buffer("mel_filters", filters.float(), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Turn waveforms (B, S) float32 in [-1, 1] into normalised log-mel (B, T, F) float32, T = `config.frames`.

        `lengths` (B,) int64 counts each row's valid samples, at most S; without it all are valid. A row's result does
        not depend on the rows beside it nor on S. A row too short for a single frame is all padding.

        Raises: ValueError when `waveforms` is not (B, S) float32 with B >= 1, or `lengths` is not (B,).
        """
        log_mel = self.unnormalised(waveforms, lengths)
        return self.normalise(log_mel, self.frame_counts(_checked_lengths(waveforms, lengths)))

    def frame_counts(self, lengths: Tensor) -> Tensor:
        """Return how many frames waveforms of `lengths` (B,) samples have before any cut or padding: (B,) int64.

        A waveform shorter than one STFT window has no whole fbank frame. SSAM's recipe mirrors 200 samples at each end,
        so it needs more than 200.
        """
        if self.config.kind == "fbank":
            return (torch.div(lengths - STFT_WINDOW_SAMPLES, STFT_HOP_SAMPLES, rounding_mode="floor") + 1).clamp_min(0)
        counts = torch.div(lengths, STFT_HOP_SAMPLES, rounding_mode="floor") + 1
        return torch.where(lengths > LOG_MEL_MIRRORED_SAMPLES, counts, 0)

    def unnormalised(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Turn waveforms (B, S) into the natural log of mel energies, zero rows behind each row's own frames.

        Returns (B, T, F) float32: for "fbank" T is `config.frames`, for "log_mel" every frame of S, because that recipe
        standardises before it cuts. SpecAugment belongs between this step and `normalise`. Arguments and Raises as in
        `forward`.
        """
        lengths = _checked_lengths(waveforms, lengths)
        # Half precision would lose quiet mel bins, so the caller's autocast stops here.
        with torch.autocast(waveforms.device.type, enabled=False):
            frames = self._fbank_frames if self.config.kind == "fbank" else self._log_mel_frames
            log_mel = self._log_mel_energies(frames(waveforms, lengths))
        if self.config.kind == "fbank":
            log_mel = _fit_frames(log_mel, self.config.frames)
        return log_mel.masked_fill(~_valid(self.frame_counts(lengths), log_mel.shape[1]), 0.0)

    def normalise(self, log_mel: Tensor, frame_counts: Tensor | None = None) -> Tensor:
        """Normalise log-mel (B, T, F) from `unnormalised` and give it `config.frames` frames.

        `frame_counts` (B,) says how many leading frames of each row are valid, all where it is None; only "log_mel"
        looks at it, to standardise each row over its valid frames.
        """
        if self.config.mean is None or self.config.std is None:
            log_mel = self._standardise(log_mel, frame_counts)
            return _fit_frames(log_mel, self.config.frames)
        return (_fit_frames(log_mel, self.config.frames) - self.config.mean) / (2 * self.config.std)

    def _fbank_frames(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Cut waveforms (B, S) into Kaldi's windowed frames (B, T, 512), 0 from sample 400 on, where the window ends.

        Kaldi subtracts each frame's mean m, pre-emphasises, then windows. With d[n] = x[n] - 0.97 x[n - 1] taken once
        over the waveform, that is window[n] (d[n] - 0.03 m). A frame's first sample has no predecessor, and the
        symmetric Hann window weighs it with 0, so any d[0] will do.
        """
        if self.config.subtract_waveform_mean:
            waveforms = waveforms - _valid_mean(waveforms, lengths)
        waveforms = waveforms[:, : self.config.window_samples]
        waveforms = functional.pad(waveforms, (0, max(0, STFT_WINDOW_SAMPLES - waveforms.shape[1])))
        means = waveforms.unfold(1, STFT_WINDOW_SAMPLES, STFT_HOP_SAMPLES).mean(dim=-1, keepdim=True)  # (B, T, 1)
        emphasised = torch.sub(waveforms[:, 1:], waveforms[:, :-1], alpha=FBANK_PREEMPHASIS)
        emphasised = functional.pad(emphasised, (1, FBANK_FFT_SAMPLES - STFT_WINDOW_SAMPLES))
        frames = emphasised.unfold(1, FBANK_FFT_SAMPLES, STFT_HOP_SAMPLES)  # (B, T, 512)
        return torch.sub(frames, means, alpha=1 - FBANK_PREEMPHASIS) * self.stft_window

    def _log_mel_frames(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Cut waveforms (B, S) into centred, windowed frames (B, T, 400), each row mirrored at its own ends.

        Sample i of the mirrored row is sample |i| at the front and 2 (n - 1) - i behind the last of n valid samples.
        """
        samples = waveforms.shape[1]
        mirror = LOG_MEL_MIRRORED_SAMPLES
        positions = torch.arange(-mirror, samples + mirror, device=waveforms.device).abs()  # (S + 400,)
        last = (lengths - 1)[:, None]  # (B, 1)
        positions = (last - (last - positions).abs()).clamp(0, max(0, samples - 1))  # (B, S + 400)
        mirrored = functional.pad(waveforms, (0, max(0, 1 - samples))).gather(1, positions)
        return mirrored.unfold(1, STFT_WINDOW_SAMPLES, STFT_HOP_SAMPLES) * self.stft_window  # (B, T, 400)

    def _log_mel_energies(self, frames: Tensor) -> Tensor:
        """Turn windowed frames (B, T, samples) into the natural log of their mel energies (B, T, F)."""
        spectrum = torch.fft.rfft(frames)  # (B, T, bins)
        power = torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag)
        energies = power @ self.mel_filters  # (B, T, F)
        if self.config.kind == "fbank":
            return energies.clamp_min(LOG_FLOOR).log()
        return (energies + LOG_FLOOR).log()

    def _standardise(self, log_mel: Tensor, frame_counts: Tensor | None) -> Tensor:
        """Give each row (T, F) mean 0 and deviation 1 over its valid frames, and 0 elsewhere.

        Everything is taken relative to the row's first value: digital silence, a row of equal values, then becomes
        exactly 0 instead of rounding noise divided by almost nothing.
        """
        batch, frames, mels = log_mel.shape
        if frame_counts is None:
            frame_counts = torch.full((batch,), frames, device=log_mel.device)
        padding = ~_valid(frame_counts, frames)  # (B, T, 1)
        values = (frame_counts * mels)[:, None, None]
        relative = (log_mel - log_mel[:, :1, :1]).masked_fill(padding, 0.0)
        means = relative.sum(dim=(1, 2), keepdim=True) / values.clamp_min(1)
        centred = (relative - means).masked_fill(padding, 0.0)
        divisors = (values - int(self.config.unbiased_std)).clamp_min(1)
        variances = centred.square().sum(dim=(1, 2), keepdim=True) / divisors
        return centred / (variances.sqrt() + STANDARDISE_FLOOR)


def _fbank_tables(mels: int) -> tuple[Tensor, Tensor]:
    """Return Kaldi's symmetric Hann window, zero-padded to the FFT (512,), and mel filters (257, F), both float64."""
    stft_window = torch.hann_window(STFT_WINDOW_SAMPLES, periodic=False, dtype=torch.float64)
    stft_window = functional.pad(stft_window, (0, FBANK_FFT_SAMPLES - STFT_WINDOW_SAMPLES))
    return stft_window, kaldi_mel_filters(mels, FBANK_FFT_SAMPLES, SAMPLE_RATE)


def _log_mel_tables(mels: int) -> tuple[Tensor, Tensor]:
    """Return SSAM's periodic Hann window (400,) and mel filters (201, F), both float64."""
    stft_window = torch.hann_window(STFT_WINDOW_SAMPLES, periodic=True, dtype=torch.float64)
    return stft_window, htk_mel_filters(mels, STFT_WINDOW_SAMPLES, SAMPLE_RATE)


def _checked_lengths(waveforms: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the valid samples of each row, between 0 and S, on the waveforms' device: (B,) int64."""
    if waveforms.ndim != 2 or len(waveforms) == 0 or waveforms.dtype != torch.float32:
        shape = tuple(waveforms.shape)
        raise ValueError(f"Waveforms must be float32 of shape (batch, samples), not {waveforms.dtype} of {shape}.")
    batch, samples = waveforms.shape
    if lengths is None:
        return torch.full((batch,), samples, device=waveforms.device)
    if lengths.shape != (batch,):
        raise ValueError(f"Lengths must have shape ({batch},), one per waveform, not {tuple(lengths.shape)}.")
    return lengths.to(waveforms.device, torch.int64).clamp(0, samples)


def _valid(counts: Tensor, size: int) -> Tensor:
    """Mark the first counts[b] of `size` positions: (B,) -> (B, size, 1) bool."""
    return (torch.arange(size, device=counts.device) < counts[:, None])[..., None]


def _valid_mean(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean of each row's valid samples: (B, 1) float32."""
    valid = _valid(lengths, waveforms.shape[1])[..., 0]
    # Summed in float64, so that the rounding does not depend on S; Apple's GPUs have no float64.
    precision = torch.float32 if waveforms.device.type == "mps" else torch.float64
    totals = waveforms.masked_fill(~valid, 0.0).sum(dim=1, keepdim=True, dtype=precision)
    return (totals / lengths.clamp_min(1)[:, None]).float()


def _fit_frames(log_mel: Tensor, frames: int) -> Tensor:
    """Keep the first `frames` frames of (B, T, F), or append zero rows: (B, frames, F)."""
    return functional.pad(log_mel[:, :frames], (0, 0, 0, max(0, frames - log_mel.shape[1])))
