"""One model's place on the devices: its runtimes, the shape and the budget of its batches, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from server.batch_budget import BatchBudget
from server.cost_model import CostModel
from server.runtimes.base import BatchResult, Runtime

LONG_BATCH_SECONDS = 0.25  # our choice; windows of aum-tiny take 14 ms, of AST-base more than a second


@dataclass(frozen=True, eq=False)
class Lane:
    """The same checkpoint on one device or several: `runtimes` holds one for each of the engine's workers.

    Workers that share a device, for a runtime of several batches at a time, find the same one in their places.

    Windows of at most `window_samples` go in, at most `batch_windows` at once; logits of `classes` come out.
    `brief_windows`, where there are any, are the most while few requests wait: on a CPU more of them take longer.
    """

    model: str
    runtimes: tuple[Runtime, ...]
    window_samples: int
    sample_rate: int
    classes: int
    batch_windows: int
    brief_windows: int | None = None
    cost: CostModel = field(default_factory=CostModel)
    _budgets: dict[int, BatchBudget] = field(default_factory=dict)

    @property
    def runtime(self) -> Runtime:
        """The first device's; the others run alike."""
        return self.runtimes[0]

    @property
    def window_seconds(self) -> float:
        return self.window_samples / self.sample_rate

    @property
    def running_batches(self) -> int:
        """How many batches run at a time, on all devices; further ones only lie ready."""
        return len(self.runtimes) - self.runtime.ready_batches

    @property
    def independent_batches(self) -> int:
        """How many batches at a time wait for nothing of one another's, on all devices."""
        return sum(runtime.independent_batches for runtime in set(self.runtimes))

    def budget(self, device: int) -> BatchBudget:
        """How many windows a batch may hold on this device at the moment."""
        return self._budgets.setdefault(device, BatchBudget(self.batch_windows))

    def most_windows(self, device: int, requests_in_line: int) -> int:
        """The device's budget, or a brief batch where so few requests wait that a newcomer would feel a longer one.

        A newcomer waits for one window of each of them, shared out among the cores. A batch takes a quarter of that.
        Large networks gain nothing from longer batches, and with batches of seconds nobody can say when one's turn is.
        """
        most = self.budget(device).windows
        if self.brief_windows is None:
            return most
        alone = self.cost.predict(1, 1)
        fitting = int(LONG_BATCH_SECONDS / alone) if alone else most
        return min(most, max(self.brief_windows, min(fitting, requests_in_line // (4 * self.running_batches))))

    def run(self, waveforms: Sequence[np.ndarray], device: int = 0, batches: int = 1) -> BatchResult:
        """Pads waveforms float32 (samples,) and runs them as one batch on one device; raises as `run_padded`."""
        return self.run_padded(*self.pad(waveforms), device, batches)

    def pad(self, waveforms: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Waveforms float32 (samples,) as rows with zeros behind them (B, S), and their lengths int64 (B,)."""
        padded = np.zeros((len(waveforms), self.padded_samples(waveforms)), np.float32)
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = waveform
        return padded, np.array([len(waveform) for waveform in waveforms], np.int64)

    def padded_samples(self, waveforms: Sequence[np.ndarray]) -> int:
        """S: the shortest quarter of the window that holds them all, so that short clips make a short front end.

        Few different lengths keep the shapes, and with them torch's caches, few.
        """
        quarter = -(-self.window_samples // 4)
        longest = max(len(waveform) for waveform in waveforms)
        return min(self.window_samples, -(-longest // quarter) * quarter)

    def run_padded(self, padded: np.ndarray, lengths: np.ndarray, device: int, batches: int = 1) -> BatchResult:
        """Runs waveforms (B, S) of these lengths (B,) and checks that logits are (B, C) and embeddings (B, D).

        `batches` run at that moment, this one counted.

        Raises: ValueError for logits or embeddings of another shape; whatever the runtime raises.
        """
        result = self.runtimes[device].run(padded, lengths, batches)
        expected = (len(padded), self.classes)
        if result.logits.shape != expected:
            raise ValueError(f"the runtime answered logits of shape {result.logits.shape}, not {expected}")
        if result.embeddings.ndim != 2 or len(result.embeddings) != len(padded):
            raise ValueError(f"the runtime answered embeddings of shape {result.embeddings.shape}")
        return result
