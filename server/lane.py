"""One model's place on a device: its runtime, the shape of its batches and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from server.cost_model import CostModel
from server.runtimes.base import BatchResult, Runtime


@dataclass(frozen=True, eq=False)
class Lane:
    """Windows of at most `window_samples` go in, at most `batch_windows` at once; logits of `classes` come out."""

    model: str
    runtime: Runtime
    window_samples: int
    sample_rate: int
    classes: int
    batch_windows: int
    cost: CostModel = field(default_factory=CostModel)

    @property
    def window_seconds(self) -> float:
        return self.window_samples / self.sample_rate

    def run(self, waveforms: Sequence[np.ndarray]) -> BatchResult:
        """Pads waveforms float32 (samples,) to (B, S), runs them and checks that the logits are (B, C).

        Raises: ValueError for logits of another shape; whatever the runtime raises.
        """
        padded = np.zeros((len(waveforms), self.window_samples), np.float32)
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = waveform
        lengths = np.array([len(waveform) for waveform in waveforms], np.int64)
        result = self.runtime.run(padded, lengths)
        expected = (len(waveforms), self.classes)
        if result.logits.shape != expected:
            raise ValueError(f"the runtime answered logits of shape {result.logits.shape}, not {expected}")
        return result
