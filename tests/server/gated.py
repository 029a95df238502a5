"""What the engine's tests share: a runtime that waits to be let on, and engines and lanes of small windows."""

from concurrent.futures import Future
from threading import Event

import numpy as np

from server.cost_model import CostModel
from server.engine import Engine, EngineLimits
from server.fair_queue import ItemResult
from server.lane import Lane
from server.metrics import Metrics
from server.runtimes.base import BatchResult
from server.runtimes.fake import FakeRuntime

RATE = 100  # windows of 1 second hold 100 samples


class Clock:
    """Stands in for the module `time` and stands still unless told."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


class GatedRuntime(FakeRuntime):
    """Waits for `gate` before each batch; remembers the first sample of every row, and how many batches ran beside."""

    def __init__(self) -> None:
        super().__init__(classes=4)
        self.gate = Event()
        self.entered = Event()
        self.rows: list[list[float]] = []
        self.beside: list[int] = []

    def run(self, waveforms: np.ndarray, lengths: np.ndarray, batches: int = 1) -> BatchResult:
        self.entered.set()
        self.beside.append(batches)
        assert self.gate.wait(10)
        self.rows.append([round(float(value), 3) for value in waveforms[:, 0]])
        return super().run(waveforms, lengths, batches)


class BatchingPays(CostModel):
    """Learns as ever, but whose turn it is does not hang on how long a test's batches happened to take."""

    is_linear = False


def make_lane(
    *runtimes: FakeRuntime, batch_windows: int = 4, brief_windows: int | None = None, model: str = "fake"
) -> Lane:
    return Lane(model, runtimes, RATE, RATE, runtimes[0].classes, batch_windows, brief_windows, BatchingPays())


def make_engine(queue_audio_seconds: float = 100, requests: int = 100, windows_in_flight: int = 8) -> Engine:
    engine = Engine(EngineLimits(queue_audio_seconds, requests, windows_in_flight), Metrics())
    engine.start()
    return engine


def window(value: float = 0.5, samples: int = RATE) -> np.ndarray:
    return np.full(samples, value, np.float32)


def hold_device(engine: Engine, runtime: GatedRuntime, lane: Lane) -> Future[ItemResult]:
    """Puts one window on the device and returns once it is there, so that whatever follows has to wait."""
    future = engine.submit(engine.admit(lane), window(0.9))
    assert runtime.entered.wait(10)
    return future
