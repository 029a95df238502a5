"""A live stream's bytes → windows of waveform at the model's rate, as soon as each is complete."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from model.audio import BrokenAudioError, Resampler, check_samples
from model.windows import Window, WindowCutter, WindowGrid
from server.live_errors import BadFrameError, FrameTooLargeError
from server.schemas import StreamStart

ENCODINGS: dict[str, np.dtype[Any]] = {"f32le": np.dtype("<f4"), "s16le": np.dtype("<i2")}
MAX_FRAME_BYTES = 2**20  # half a minute of 16-bit sound at 16 kHz
PART_SECONDS = 10  # converted at once: a mebibyte at 1 kHz would be 34 MB at the model's rate


class LiveSound:
    """Takes the frames of one stream, in order; holds one frame, and one part and one window of sound."""

    def __init__(self, start: StreamStart, sample_rate: int, grid: WindowGrid) -> None:
        self._encoding = start.encoding
        self._part_bytes = PART_SECONDS * start.sample_rate * ENCODINGS[start.encoding].itemsize
        self._resampler = Resampler(start.sample_rate, sample_rate)
        self._cutter = WindowCutter(grid)

    @property
    def samples(self) -> int:
        """How many samples have come out of the resampler, which holds back a few."""
        return self._cutter.samples

    def parts(self, frame: bytes) -> Iterator[bytes]:
        """Yields a frame in parts of bounded duration, each for `take`.

        Raises: FrameTooLargeError, BadFrameError.
        """
        dtype = ENCODINGS[self._encoding]
        if len(frame) > MAX_FRAME_BYTES:
            raise FrameTooLargeError(
                f"the message has {len(frame):,} bytes, the limit is {MAX_FRAME_BYTES:,}; send smaller ones"
            )
        if len(frame) % dtype.itemsize:
            raise BadFrameError(
                f"the message has {len(frame):,} bytes, which are no whole samples of {dtype.itemsize} bytes each"
                f" ({self._encoding})"
            )
        for start in range(0, len(frame), self._part_bytes):
            yield frame[start : start + self._part_bytes]

    def take(self, part: bytes) -> np.ndarray:
        """A part as float32 (samples,) at the model's rate; the next step is `cut`.

        Raises: BrokenAudioError for samples that are no sensible numbers.
        """
        dtype = ENCODINGS[self._encoding]
        samples = np.frombuffer(part, dtype)
        waveform = samples / np.float32(32768) if dtype.kind == "i" else samples.astype(np.float32)
        return self._resampler.push(check_samples(waveform))

    def cut(self, waveform: np.ndarray) -> Iterator[Window]:
        """Yields the windows that this part completes; run it to its end before the next."""
        return self._cutter.push(waveform)

    def finish(self) -> Iterator[Window]:
        """Yields what is left when the sound has ended.

        Raises: BrokenAudioError where there was no sound at all.
        """
        yield from self._cutter.push(self._resampler.finish())
        if not self._cutter.samples:
            raise BrokenAudioError("the audio is empty: it holds no samples")
        yield from self._cutter.finish()
