"""Bytes or a file → blocks of float32 waveform at the checkpoint's sample rate, streaming, mono or channel by channel.

    file → sniff → decoder → (samples, channels) → mean of the channels → resampled (soxr HQ) → blocks (samples,)
                                                └─ or as they are ─────► resampled ───────────► (samples, channels)

Nothing is cut silently and nothing is clipped: lossy codecs and float files overshoot [-1, 1] a little, and flattening
those peaks would add sound that was never there. Levels are left alone too.
What may be wrong with the bytes is drawn in `model/decoding/errors.py`; no other error comes from the audio itself.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Protocol, Self

import numpy as np
import soxr

from model.decoding.av_decoder import AvDecoder
from model.decoding.errors import AudioError, AudioTooLongError, BrokenAudioError, NotAudioError
from model.decoding.extents import check_extent
from model.decoding.formats import W64, AudioFormat, sniff
from model.decoding.soundfile_decoder import open_soundfile
from model.decoding.w64 import fill_in_sizes

__all__ = [
    "BLOCK_SAMPLES",
    "AudioError",
    "AudioStream",
    "AudioTooLongError",
    "BrokenAudioError",
    "Channels",
    "NotAudioError",
    "Resampler",
    "Source",
    "open_audio",
    "read_waveform",
]

Channels = Literal["mixed", "split"]
Source = str | Path | bytes | BinaryIO  # a file object must be seekable; it is read from its beginning
BLOCK_SAMPLES = 65_536  # about four seconds; 256 KiB
HEADER_SLACK_SECONDS = 0.1  # headers also count what decoders drop: Opus's first 6.5 ms, an encoder's padding
LOUDEST_SAMPLE = 2.0**31  # float files sometimes hold 32-bit integers unscaled; beyond that a spectrum overflows


class Decoder(Protocol):
    """What libsndfile's and FFmpeg's decoders have in common."""

    codec: str
    sample_rate: int
    channels: int
    duration_seconds: float | None  # as far as the header declares one

    def blocks(self) -> Iterator[np.ndarray]: ...

    def close(self) -> None: ...


class AudioStream:
    """An opened sound: iterate it once for mono float32 blocks (samples,) of at most BLOCK_SAMPLES at `sample_rate`.

    With `channels` "split" blocks are (samples, channels), of at most BLOCK_SAMPLES numbers in all.
    A context manager. Files it opened itself close with it, at the sound's end, and on any error. One thread at a time:
    close it where it is iterated.
    """

    def __init__(
        self,
        decoder: Decoder,
        container: str,
        sample_rate: int,
        max_seconds: float | None,
        channels: Channels,
        resources: ExitStack,
    ) -> None:
        self.container = container
        self.declared_seconds = decoder.duration_seconds
        self.codec = decoder.codec
        self.source_sample_rate = decoder.sample_rate
        self.source_channels = decoder.channels
        self.sample_rate = sample_rate
        self.samples_read = 0  # yielded so far, at `sample_rate`; the whole duration once exhausted
        self._resources = resources
        self._split = decoder.channels if channels == "split" else None
        self._blocks: Iterator[np.ndarray] | None = self._decode(decoder, max_seconds)
        self._exhausted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> np.ndarray:
        """Raises: BrokenAudioError, NotAudioError or AudioTooLongError when it shows; ValueError after `close`."""
        if self._blocks is None:
            if self._exhausted:
                raise StopIteration
            raise ValueError("the audio stream is closed")
        try:
            return next(self._blocks)
        except StopIteration:
            self._exhausted = True
            self.close()
            raise
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the decoder and the files opened here; harmless when repeated."""
        self._blocks = None
        self._resources.close()

    def _decode(self, decoder: Decoder, max_seconds: float | None) -> Iterator[np.ndarray]:
        decoded = limit_duration(decoder.blocks(), decoder.sample_rate, max_seconds)
        wanted = map(mix_to_mono, decoded) if self._split is None else map(self._keep_channels, decoded)
        block_samples = max(1, BLOCK_SAMPLES // (self._split or 1))
        checked = map(check_samples, regroup(wanted, block_samples))
        resampled = resample(checked, decoder.sample_rate, self.sample_rate, self._split)
        for block in regroup(resampled, block_samples):
            self.samples_read += len(block)
            yield block
        if not self.samples_read:
            raise BrokenAudioError("the audio is empty: it holds no samples")

    def _keep_channels(self, block: np.ndarray) -> np.ndarray:
        if block.shape[1] != self.source_channels:
            raise BrokenAudioError(
                f"the audio changes from {self.source_channels} to {block.shape[1]} channels; tag it with them mixed"
            )
        with np.errstate(invalid="ignore", over="ignore"):
            return block.astype(np.float32, copy=False)


def open_audio(
    source: Source, sample_rate: int, max_seconds: float | None = None, channels: Channels = "mixed"
) -> AudioStream:
    """Open a path, encoded bytes or a seekable file for streaming at `sample_rate` (Hz).

    The output has round(samples * sample_rate / source_sample_rate) samples. `max_seconds` is enforced here on what the
    header declares, and while streaming on what is decoded.

    Raises: NotAudioError, BrokenAudioError or AudioTooLongError (what only shows later is raised by the iteration);
    OSError when a path cannot be read; ValueError when a file object cannot seek.
    """
    if sample_rate < 1:
        raise ValueError(f"sample_rate must be positive, not {sample_rate}")
    with ExitStack() as resources:
        file = _open_source(source, resources)
        audio_format = sniff(file)
        if audio_format is W64:
            file = fill_in_sizes(file)
        check_extent(file, audio_format)
        decoder = _open_decoder(file, audio_format)
        resources.callback(decoder.close)
        if max_seconds is not None and decoder.duration_seconds is not None:
            _refuse_beyond(max_seconds, decoder.duration_seconds, "is", HEADER_SLACK_SECONDS)
        return AudioStream(decoder, audio_format.name, sample_rate, max_seconds, channels, resources.pop_all())


def read_waveform(source: Source, sample_rate: int, max_seconds: float | None = None) -> np.ndarray:
    """Read a whole short sound into memory: float32 (samples,); arguments and errors as in `open_audio`."""
    with open_audio(source, sample_rate, max_seconds) as stream:
        return np.concatenate(list(stream))


def mix_to_mono(block: np.ndarray) -> np.ndarray:
    """Average the channels of one block: (samples, channels) → float32 (samples,); what is not finite stays so."""
    weights = np.full(block.shape[1], 1 / block.shape[1], block.dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        if len(weights) == 1:
            return block[:, 0].astype(np.float32, copy=False)
        return (block @ weights).astype(np.float32, copy=False)


def check_samples(block: np.ndarray) -> np.ndarray:
    """Pass on a block (samples,) or (samples, channels) of sensible numbers.

    Raises: BrokenAudioError on samples that are not finite, or louder than any recording (2**31 full scales).
    """
    if not -LOUDEST_SAMPLE <= block.min() <= block.max() <= LOUDEST_SAMPLE:  # also true of NaN
        raise BrokenAudioError("the audio is damaged: it holds samples that are not finite numbers of a sensible size")
    return block


def limit_duration(blocks: Iterable[np.ndarray], sample_rate: int, max_seconds: float | None) -> Iterator[np.ndarray]:
    """Pass blocks (samples, channels) on until more than `max_seconds` have come, whatever the header declared.

    Raises: AudioTooLongError as soon as that shows.
    """
    samples = 0
    for block in blocks:
        samples += len(block)
        if max_seconds is not None:
            _refuse_beyond(max_seconds, samples / sample_rate, "is at least")
        yield block


class Resampler:
    """One stream through soxr HQ: of n samples in all come round(n * target_rate / source_rate), with a small delay.

    Blocks are (samples,), or (samples, channels) where `channels` is given.
    """

    def __init__(self, source_rate: int, target_rate: int, channels: int | None = None) -> None:
        self._nothing = np.zeros((0,) if channels is None else (0, channels), np.float32)
        self._stream = None
        if source_rate != target_rate:
            self._stream = soxr.ResampleStream(
                source_rate, target_rate, num_channels=channels or 1, dtype="float32", quality="HQ"
            )

    def push(self, block: np.ndarray) -> np.ndarray:
        """Takes the next block float32 and gives what is ready."""
        return block if self._stream is None else self._stream.resample_chunk(block)

    def finish(self) -> np.ndarray:
        """Gives what is left when the stream has ended."""
        return self._nothing if self._stream is None else self._stream.resample_chunk(self._nothing, last=True)


def resample(
    blocks: Iterable[np.ndarray], source_rate: int, target_rate: int, channels: int | None = None
) -> Iterator[np.ndarray]:
    """Resample blocks float32 (samples,), or (samples, channels), as one stream."""
    resampler = Resampler(source_rate, target_rate, channels)
    for block in blocks:
        yield resampler.push(block)
    yield resampler.finish()


def regroup(blocks: Iterable[np.ndarray], block_samples: int) -> Iterator[np.ndarray]:
    """Join and cut blocks so that all but the last hold exactly `block_samples`; none is empty."""
    held: list[np.ndarray] = []
    missing = block_samples
    for block in blocks:
        while len(block) >= missing:
            yield _join([*held, block[:missing]])
            block = block[missing:]
            held, missing = [], block_samples
        if len(block):
            held.append(block)
            missing -= len(block)
    if held:
        yield _join(held)


def _join(blocks: list[np.ndarray]) -> np.ndarray:
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _open_source(source: Source, resources: ExitStack) -> BinaryIO:
    if isinstance(source, str | Path):
        return resources.enter_context(open(source, "rb"))
    if isinstance(source, bytes):
        return resources.enter_context(BytesIO(source))
    if not source.seekable():
        raise ValueError("audio can only be decoded from a seekable file: an M4A may keep its index at the end")
    return source


def _open_decoder(file: BinaryIO, audio_format: AudioFormat) -> Decoder:
    if audio_format.soundfile and (decoder := open_soundfile(file)) is not None:
        return decoder
    return AvDecoder(file, audio_format)


def _refuse_beyond(max_seconds: float, seconds: float, verb: str, slack_seconds: float = 0.0) -> None:
    if seconds > max_seconds + slack_seconds:
        raise AudioTooLongError(
            f"the audio {verb} {seconds:.10g} seconds long, the limit is {max_seconds:.10g} seconds; send shorter parts"
        )
