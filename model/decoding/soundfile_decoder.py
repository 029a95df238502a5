"""Decodes uncompressed audio and FLAC with libsndfile (python-soundfile): a few large reads, no work per frame."""

import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile

from model.decoding.errors import BrokenAudioError, check_layout
from model.decoding.files import NativeFile

_READ_VALUES = 131_072  # samples times channels in one read: bounded memory, whatever the channel count
_COPIED_BYTES = 4 << 20  # shorter files are copied; see `_native`
_UNKNOWN_LENGTH = 1 << 40  # FLAC made from a stream has no length; libsndfile then reports its largest number


class SoundfileDecoder:
    """An opened file; the file object stays the caller's to close."""

    def __init__(self, sound: soundfile.SoundFile) -> None:
        self._sound = sound
        self.codec: str = sound.subtype.lower()
        self.sample_rate: int = sound.samplerate
        self.channels: int = sound.channels
        self.duration_seconds: float | None = sound.frames / sound.samplerate

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield (samples, channels) float32 blocks.

        Raises: BrokenAudioError when the sound cannot be decoded, or ends before its declared length.
        """
        decoded = 0
        while decoded < self._sound.frames and len(block := self._read(decoded)):
            decoded += len(block)
            yield block
        if decoded != self._sound.frames:
            raise BrokenAudioError(
                f"the audio is cut short: it declares {self._sound.frames:,} samples, only {decoded:,} can be decoded"
            )

    def close(self) -> None:
        """Release libsndfile's handle; the blocks end here."""
        self._sound.close()

    def _read(self, decoded: int) -> np.ndarray:
        try:
            return self._sound.read(max(1, _READ_VALUES // self.channels), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            seconds = decoded / self.sample_rate
            raise BrokenAudioError(
                f"the audio is damaged or cut short: it cannot be decoded beyond {seconds:.1f} seconds"
            ) from error


def open_soundfile(file: BinaryIO) -> SoundfileDecoder | None:
    """Open a seekable file with libsndfile; None where it refuses (FFmpeg may know the codec).

    Raises: BrokenAudioError on an absurd sample rate or channel count.
    """
    try:
        sound = soundfile.SoundFile(_native(file))
    except soundfile.LibsndfileError:
        return None
    if sound.frames >= _UNKNOWN_LENGTH:
        sound.close()
        return None
    decoder = SoundfileDecoder(sound)
    try:
        check_layout(decoder.sample_rate, decoder.channels)
    except BrokenAudioError:
        decoder.close()
        raise
    return decoder


def _native(file: BinaryIO) -> int | NativeFile:
    """A short file as a descriptor of the system's own, which libsndfile closes.

    From a Python file it reads 8 KiB at a time, and for each waits its turn in the interpreter: beside busy threads a
    clip of 10 seconds waited 40 times.
    """
    size = file.seek(0, os.SEEK_END)
    if size > _COPIED_BYTES or not hasattr(os, "memfd_create"):
        return NativeFile(file)
    file.seek(0)
    descriptor = os.memfd_create("sound")
    with open(descriptor, "wb", closefd=False) as copy:
        copy.write(file.read())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
