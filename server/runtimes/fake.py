"""A runtime without a network: logits follow from the waveform alone, so tests and load tests need no weights."""

import time

import numpy as np

from server.runtimes.base import BatchResult, DeviceOutOfMemoryError, RuntimeInfo


class FakeRuntime:
    """Answers deterministic logits after an optional delay, and fails on demand.

    `failures` counts the batches yet to fail; `poison` is the sample value that makes any batch holding it fail;
    `broken_value` is the sample value whose row answers NaN; a batch of more than `memory_windows` does not fit;
    `death` is raised once; `calls` keeps the size of every batch.
    """

    most_batches, ready_batches, independent_batches = 1, 0, 1

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
        self.memory_windows: int | None = None
        self.death: BaseException | None = None
        self.calls: list[int] = []

    def run(self, waveforms: np.ndarray, lengths: np.ndarray, batches: int = 1) -> BatchResult:
        """Tags waveforms (B, S) with logits (B, C) in [-6, 6] and embeddings (B, 4).

        They depend on each row's valid samples only.

        Raises: RuntimeError, DeviceOutOfMemoryError, or its death, when told to fail.
        """
        started = time.perf_counter()
        self.calls.append(len(waveforms))
        time.sleep(self.batch_delay_seconds + self.window_delay_seconds * len(waveforms))
        if self.death is not None:
            death, self.death = self.death, None
            raise death
        if self.memory_windows is not None and len(waveforms) > self.memory_windows:
            raise DeviceOutOfMemoryError("the fake runtime was told to have no more memory")
        if self.failures > 0:
            self.failures -= 1
            raise RuntimeError("the fake runtime was told to fail")
        if self.poison is not None and np.any(waveforms == np.float32(self.poison)):
            raise RuntimeError("the fake runtime met the poisoned sample")
        embeddings = np.stack([_embed(row[:length]) for row, length in zip(waveforms, lengths, strict=True)])
        logits = np.stack([self._logits(*row[:2]) for row in embeddings])
        if self.broken_value is not None:
            logits[np.any(waveforms == np.float32(self.broken_value), axis=1), 0] = np.nan
        return BatchResult(logits, embeddings, 0.0, time.perf_counter() - started)

    def close(self) -> None:
        """Holds nothing, so gives nothing back."""

    def _logits(self, loudness: float, crossings: float) -> np.ndarray:
        phase = np.arange(self.classes) * (0.37 + crossings) + 10 * loudness
        return (6 * np.sin(phase)).astype(np.float32)


def _embed(waveform: np.ndarray) -> np.ndarray:
    """What the logits follow from, float32 (4,): loudness, zero crossings per sample, their product, and 1."""
    loudness = float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64))))
    crossings = float(np.mean(np.diff(np.signbit(waveform)))) if len(waveform) > 1 else 0.0
    return np.array([loudness, crossings, loudness * crossings, 1], np.float32)
