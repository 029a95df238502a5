"""Decodes compressed audio with FFmpeg's libraries (PyAV), from a seekable file: an M4A may keep its index at the end.

PyAV keeps FFmpeg's log switched off. The demuxer is forced, no protocol may be opened, and video is not decoded.
"""

from collections.abc import Iterator
from typing import BinaryIO

import av
import av.container
import numpy as np
from av.stream import Discard

from model.decoding.errors import BrokenAudioError, NotAudioError, check_layout
from model.decoding.files import NativeFile
from model.decoding.formats import AudioFormat

_OPEN_OPTIONS = {
    "protocol_whitelist": "none",
    # while probing, FFmpeg would decode pictures too: a way to fill memory with a small file
    "codec_whitelist": "aac,aac_latm,ac3,eac3,alac,amrnb,amrwb,flac,mp1float,mp2float,mp3float,opus,libopus,vorbis,"
    "pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,pcm_u8,pcm_alaw,pcm_mulaw",
}
_FULL_SCALE = {"u1": 1 << 7, "i2": 1 << 15, "i4": 1 << 31}
_GAP_SECONDS = 0.25  # WebM rounds its times to milliseconds, and recorders' clocks drift: less is no hole
_LONGEST_GAP_SECONDS = 3_600.0  # more is a damaged timestamp, and would be endless silence
_SILENCE_VALUES = 65_536  # samples times channels in one block
_COUNTABLE_PLANES = 7
_TAGS = (b"ID3", b"TAG", b"APETAGEX")


class AvDecoder:
    """An opened file, its first frame decoded (headers may lie about the sample rate); the file stays the caller's."""

    def __init__(self, file: BinaryIO, audio_format: AudioFormat) -> None:
        """Raises: NotAudioError without an audio stream we can decode, BrokenAudioError when nothing can be decoded."""
        self._format = audio_format
        self._decoded = 0  # samples of each channel
        self._container = _open_container(file, audio_format)
        try:
            self._stream = _choose_stream(self._container, audio_format.name)
            self._frames = self._decode()
            self._first = next(self._frames, None)
            if self._first is None:
                raise BrokenAudioError(f"the {audio_format.name} audio is empty: it holds no samples")
            self.codec: str = self._stream.codec_context.name
            self.sample_rate: int = self._first.sample_rate
            self.channels: int = self._first.layout.nb_channels
            check_layout(self.sample_rate, self.channels)
            self.duration_seconds = self._declared_seconds()
        except BaseException:
            self.close()
            raise

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield (samples, channels) blocks in float32 or float64, one a frame; holes in the timeline come as silence.

        Raises: BrokenAudioError when a part cannot be decoded, is missing, or changes its sample rate.
        """
        frame = self._first
        self._first = None
        origin_seconds = frame.time if frame is not None else None
        while frame is not None:
            self._check_sample_rate(frame)
            if self._format.has_gaps and origin_seconds is not None and frame.time is not None:
                yield from self._silence_until(frame.time - origin_seconds)
            self._decoded += frame.samples
            yield frame_to_block(frame)
            frame = next(self._frames, None)
        self._check_shortfall()

    def close(self) -> None:
        """Release FFmpeg's handles; the blocks end here."""
        self._container.close()

    def _decode(self) -> Iterator[av.AudioFrame]:
        try:
            for packet in self._container.demux(self._stream):
                if packet.is_corrupt:
                    raise self._damage()
                if self._format.has_tags_between and bytes(memoryview(packet)[:8]).startswith(_TAGS):
                    continue
                for frame in packet.decode():
                    yield from _interleave_if_wide(frame)
        except av.FFmpegError as error:
            raise self._damage() from error

    def _damage(self) -> BrokenAudioError:
        seconds = self._decoded / self._stream.sample_rate if self._stream.sample_rate else 0.0
        return BrokenAudioError(
            f"the {self._format.name} audio is damaged or cut short: it cannot be decoded beyond {seconds:.1f} seconds"
        )

    def _declared_seconds(self) -> float | None:
        if not self._format.declares_duration:
            return self._format.least_seconds
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        if self._container.duration is not None and len(self._container.streams) == 1:
            return self._container.duration / av.time_base
        return None

    def _check_sample_rate(self, frame: av.AudioFrame) -> None:
        if frame.sample_rate != self.sample_rate:
            raise BrokenAudioError(
                f"the audio changes its sample rate from {self.sample_rate:,} to {frame.sample_rate:,} Hz"
                f" after {self._decoded / self.sample_rate:.1f} seconds; send its parts one by one"
            )

    def _silence_until(self, seconds: float) -> Iterator[np.ndarray]:
        gap_seconds = seconds - self._decoded / self.sample_rate
        if gap_seconds < _GAP_SECONDS:
            return
        if gap_seconds > _LONGEST_GAP_SECONDS:
            raise self._damage()
        missing = round(gap_seconds * self.sample_rate)
        while missing > 0:
            samples = min(missing, max(1, _SILENCE_VALUES // self.channels))
            missing -= samples
            self._decoded += samples
            yield np.zeros((samples, self.channels), np.float32)

    def _check_shortfall(self) -> None:
        declared, allowed = self.duration_seconds, self._format.shortfall_seconds
        if declared is None or allowed is None:
            return
        decoded = self._decoded / self.sample_rate
        if declared - decoded > allowed + 1 / self.sample_rate:
            raise BrokenAudioError(
                f"the {self._format.name} audio is damaged or cut short:"
                f" it declares {declared:.2f} seconds, but only {decoded:.2f} can be decoded"
            )


def frame_to_block(frame: av.AudioFrame) -> np.ndarray:
    """One decoded frame → (samples, channels) in float32 or float64, integers scaled to [-1, 1].

    Raises: NotAudioError on a sample format that numpy has no type for (DSD, 64-bit integers).
    """
    try:
        samples = frame.to_ndarray()
    except ValueError as error:
        raise NotAudioError(f"samples in the form {frame.format.name} cannot be decoded") from error
    # planar: (channels, samples); packed: (1, samples * channels)
    block = samples.T if frame.format.is_planar else samples.reshape(-1, frame.layout.nb_channels)
    scale = _FULL_SCALE.get(block.dtype.str[1:])
    if scale is None:
        return block
    middle = scale if block.dtype == np.uint8 else 0
    return (block.astype(np.float32) - middle) / scale


def _interleave_if_wide(frame: av.AudioFrame) -> list[av.AudioFrame]:
    """Planes become interleaved samples where there are more than PyAV can count; an empty frame vanishes.

    PyAV counts planes up to the first null pointer, but FFmpeg's array of eight has none when all are used: given 7.1
    sound, and wider, it reads on into foreign memory.
    """
    if not frame.samples:
        return []
    if not frame.format.is_planar or frame.layout.nb_channels <= _COUNTABLE_PLANES:
        return [frame]
    return av.AudioResampler(format=frame.format.packed).resample(frame)


def _open_container(file: BinaryIO, audio_format: AudioFormat) -> av.container.InputContainer:
    try:
        native = NativeFile(file)
        return av.open(native, mode="r", format=audio_format.demuxer, options=_OPEN_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        raise BrokenAudioError(
            f"the {audio_format.name} audio is damaged or cut short: its header cannot be read"
        ) from error


def _choose_stream(container: av.container.InputContainer, name: str) -> av.AudioStream:
    stream = container.streams.best("audio")
    if not isinstance(stream, av.AudioStream):
        raise NotAudioError(f"the {name} file holds no audio stream")
    if stream.codec_context is None:
        raise NotAudioError(f"the {name} file holds audio in a codec that cannot be decoded here")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    return stream
