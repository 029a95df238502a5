"""Decodes an upload on the decode threads, a few windows at a time."""

import time
from itertools import islice
from threading import Lock

from model.audio import AudioStream, open_audio
from model.windows import Window, WindowGrid, cut_windows
from server.uploads import Upload


class WindowReader:
    """Decodes an upload step by step; steps may run on different threads, one at a time."""

    def __init__(self, upload: Upload, sample_rate: int, grid: WindowGrid, max_seconds: float) -> None:
        self._upload = upload
        self._sample_rate = sample_rate
        self._grid = grid
        self._max_seconds = max_seconds
        self._lock = Lock()
        self._stream: AudioStream | None = None
        self._closed = False
        self.exhausted = False
        self.seconds = 0.0

    def read(self, count: int) -> list[Window]:
        """The next `count` windows, fewer when the sound has ended; raises AudioError."""
        with self._lock:
            if self._closed:
                return []
            started = time.perf_counter()
            if self._stream is None:
                self._stream = open_audio(self._upload.file, self._sample_rate, self._max_seconds)
                self._windows = cut_windows(self._stream, self._grid)
            windows = list(islice(self._windows, count))
            self.exhausted = len(windows) < count
            self.seconds += time.perf_counter() - started
            return windows

    def close(self) -> None:
        """Waits for a step that is still running, then closes the decoder and the upload."""
        with self._lock:
            self._closed = True
            if self._stream is not None:
                self._stream.close()
            self._upload.close()
