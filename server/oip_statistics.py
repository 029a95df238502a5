"""What Triton's statistics extension reports: requests of the Open Inference Protocol per model, and where time went.

How often a model ran is every route's: its windows and batches come from the metrics.
"""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.metrics import Metrics

NANOSECONDS = 1_000_000_000
STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass
class Tally:
    """How many, and their seconds together."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Counts one more."""
        self.count += 1
        self.seconds += seconds

    def describe(self) -> dict[str, int]:
        """As Triton writes it."""
        return {"count": self.count, "ns": round(self.seconds * NANOSECONDS)}


@dataclass
class ModelTallies:
    """One model's requests: those answered, those failed, and the answered ones' stages."""

    success: Tally = field(default_factory=Tally)
    fail: Tally = field(default_factory=Tally)
    stages: dict[str, Tally] = field(default_factory=lambda: {stage: Tally() for stage in STAGES})
    last_inference: float = 0.0  # Unix time


class InferStatistics:
    """The tallies of all models since the server started."""

    def __init__(self) -> None:
        self._models: defaultdict[str, ModelTallies] = defaultdict(ModelTallies)

    def add_failure(self, model: str, seconds: float) -> None:
        """Counts a request that got an error."""
        self._models[model].fail.add(seconds)

    def add_success(self, model: str, seconds: float, stages: Mapping[str, float]) -> None:
        """Counts an answered request, and the seconds of each of STAGES."""
        tallies = self._models[model]
        tallies.last_inference = time.time()
        tallies.success.add(seconds)
        for stage, stage_seconds in stages.items():
            tallies.stages[stage].add(stage_seconds)

    def describe(self, model: str, version: str, metrics: Metrics) -> dict[str, Any]:
        """One model's part of the answer."""
        tallies = self._models[model]
        nothing = Tally().describe()
        value = metrics.registry.get_sample_value
        return {
            "name": model,
            "version": version,
            "last_inference": round(tallies.last_inference * 1000),
            "inference_count": int(value("hark_windows_total", {"model": model}) or 0),
            "execution_count": int(value("hark_batch_windows_count", {"model": model}) or 0),
            "inference_stats": {
                "success": tallies.success.describe(),
                "fail": tallies.fail.describe(),
                **{stage: tally.describe() for stage, tally in tallies.stages.items()},
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "batch_stats": [],
        }
