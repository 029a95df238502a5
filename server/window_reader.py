"""Decodes an upload on the decode threads, a few windows at a time."""

import time
from dataclasses import dataclass
from itertools import islice
from threading import Lock

from model.audio import AudioStream, open_audio
from model.windows import Window, WindowGrid, cut_channels, cut_windows
from server.uploads import Upload


class TooManyChannelsError(ValueError):
    """The sound has more channels than are tagged one by one."""


@dataclass(frozen=True)
class Reading:
    """How an upload is to be read: into which windows, and how long it and how many its channels may be.

    `max_channels` is None where channels are mixed, and else how many are tagged one by one at most.
    """

    sample_rate: int
    grid: WindowGrid
    max_seconds: float
    max_channels: int | None = None


class WindowReader:
    """Decodes an upload step by step and closes it at its end; steps may run on different threads, one at a time."""

    def __init__(self, upload: Upload, reading: Reading) -> None:
        self._upload = upload
        self._reading = reading
        self._lock = Lock()
        self._stream: AudioStream | None = None
        self.closed = False
        self.exhausted = False
        self.seconds = 0.0
        self.declared_seconds: float | None = None  # the sound's duration, where its header has one

    def read(self, count: int) -> list[Window]:
        """The next `count` windows, fewer when the sound has ended; raises AudioError, TooManyChannelsError."""
        with self._lock:
            if self.closed:
                return []
            started = time.perf_counter()
            if self._stream is None:
                self._stream = self._open()
            windows = list(islice(self._windows, count))
            self.exhausted = len(windows) < count
            if self.exhausted:
                self._close()
            self.seconds += time.perf_counter() - started
            return windows

    def _open(self) -> AudioStream:
        reading, split = self._reading, self._reading.max_channels is not None
        stream = open_audio(
            self._upload.file, reading.sample_rate, reading.max_seconds, channels="split" if split else "mixed"
        )
        if reading.max_channels is not None and stream.source_channels > reading.max_channels:
            stream.close()
            raise TooManyChannelsError(
                f"the sound has {stream.source_channels} channels, and at most {reading.max_channels} are tagged one by"
                " one; send channels=mixed, or fewer channels"
            )
        self.declared_seconds = stream.declared_seconds
        self._windows = (cut_channels if split else cut_windows)(stream, reading.grid)
        return stream

    def close(self) -> None:
        """Waits for a step that is still running, then closes the decoder and the upload."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        self.closed = True
        if self._stream is not None:
            self._stream.close()
        self._upload.close()
