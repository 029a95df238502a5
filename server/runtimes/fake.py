"""A runtime without a network: logits follow from the waveform alone, so tests and load tests need no weights."""

import time

import numpy as np

from server.runtimes.base import BatchResult, RuntimeInfo


class FakeRuntime:
    """Answers deterministic logits after an optional delay, and fails on demand.

    `failures` counts the batches yet to fail; `poison` is the sample value that makes any batch holding it fail;
    `broken_value` is the sample value whose row answers NaN; `calls` keeps the size of every batch.
    """

    def __init__(
        self,
        classes: int,
        batch_delay_seconds: float = 0.0,
        window_delay_seconds: float = 0.0,
        poison: float | None = None,
        broken_value: float | None = None,
    ) -> None:
        self.info = RuntimeInfo(runtime="fake", precision="float32", device="cpu", scan=None)
        self.classes = classes
        self.batch_delay_seconds = batch_delay_seconds
        self.window_delay_seconds = window_delay_seconds
        self.poison = poison
        self.broken_value = broken_value
        self.failures = 0
        self.calls: list[int] = []

    def run(self, waveforms: np.ndarray, lengths: np.ndarray) -> BatchResult:
        """Tags waveforms (B, S) with logits (B, C) in [-6, 6] that depend on each row's valid samples only.

        Raises: RuntimeError, when told to fail.
        """
        started = time.perf_counter()
        self.calls.append(len(waveforms))
        time.sleep(self.batch_delay_seconds + self.window_delay_seconds * len(waveforms))
        if self.failures > 0:
            self.failures -= 1
            raise RuntimeError("the fake runtime was told to fail")
        if self.poison is not None and np.any(waveforms == np.float32(self.poison)):
            raise RuntimeError("the fake runtime met the poisoned sample")
        rows = [self._logits(row[:length]) for row, length in zip(waveforms, lengths, strict=True)]
        return BatchResult(np.stack(rows), 0.0, time.perf_counter() - started)

    def close(self) -> None:
        """Holds nothing, so gives nothing back."""

    def _logits(self, waveform: np.ndarray) -> np.ndarray:
        loudness = float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
        crossings = float(np.mean(np.diff(np.signbit(waveform)))) if len(waveform) > 1 else 0.0
        phase = np.arange(self.classes) * (0.37 + crossings) + 10 * loudness
        logits = (6 * np.sin(phase)).astype(np.float32)
        if self.broken_value is not None and np.any(waveform == np.float32(self.broken_value)):
            logits[0] = np.nan
        return logits
