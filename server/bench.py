"""How fast a checkpoint tags on this machine, without a server: decoded waveform to scores."""

import statistics
import time
from dataclasses import dataclass

import numpy as np

from model.checkpoint import Checkpoint
from model.pipeline import tag


@dataclass(frozen=True)
class Timing:
    """The median time of tagging one clip."""

    model: str
    clip_seconds: float
    median_seconds: float

    @property
    def speed(self) -> float:
        """Seconds of sound tagged per second."""
        return self.clip_seconds / self.median_seconds


def time_model(checkpoint: Checkpoint, repeats: int) -> Timing:
    """Tags one window of seeded noise `repeats` times after a warm-up of two."""
    samples = checkpoint.config.window_samples
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)
    seconds = []
    for _ in range(repeats + 2):
        started = time.perf_counter()
        tag(waveform, checkpoint)
        seconds.append(time.perf_counter() - started)
    return Timing(checkpoint.name, samples / checkpoint.config.features.sample_rate, statistics.median(seconds[2:]))
