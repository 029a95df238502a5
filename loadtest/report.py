"""Turns the requests that a load test wrote down into numbers, and the numbers into a table and a plot.

python -m loadtest.report build/load/*.jsonl --plot latency.png
"""

import argparse
import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REFUSALS = {429, 503}
COLUMNS = (
    *("run", "requests", "ok/s", "audio s/s", "p50 ms", "p95 ms", "p99 ms"),
    *("queue ms", "inference ms", "refused", "failed"),
)


@dataclass(frozen=True)
class Summary:
    """How one run went. Latencies are those of answered requests, from when they were due."""

    name: str
    requests: int
    seconds: float
    audio_seconds: float
    latencies_seconds: tuple[float, ...]
    queue_ms: float
    inference_ms: float
    refused: int
    failed: int

    @property
    def answered_per_second(self) -> float:
        """Goodput."""
        return len(self.latencies_seconds) / self.seconds if self.seconds else 0.0

    @property
    def audio_speed(self) -> float:
        """Seconds of sound tagged per second."""
        return self.audio_seconds / self.seconds if self.seconds else 0.0

    def latency_ms(self, share: float) -> float:
        """The latency that this share of the answered requests did not exceed (nearest rank)."""
        if not self.latencies_seconds:
            return float("nan")
        rank = min(len(self.latencies_seconds) - 1, int(share * len(self.latencies_seconds)))
        return sorted(self.latencies_seconds)[rank] * 1000


def read_run(path: Path) -> Summary:
    """Summarise one file of requests."""
    return summarise(path.stem, [json.loads(line) for line in path.read_text().splitlines()])


def summarise(name: str, requests: Sequence[dict[str, Any]]) -> Summary:
    """Summarise requests; the run lasts from the first due moment to the last answer."""
    statuses = Counter(request["status"] for request in requests)
    answered = [request for request in requests if request["status"] == 200]
    stages = [parse_server_timing(request["server_timing"]) for request in answered]
    ends = [request["due_seconds"] + request["latency_seconds"] for request in requests]
    refused = sum(statuses[status] for status in REFUSALS)
    return Summary(
        name=name,
        requests=len(requests),
        seconds=max(ends) - min(request["due_seconds"] for request in requests) if requests else 0.0,
        audio_seconds=sum(request["audio_seconds"] for request in answered),
        latencies_seconds=tuple(request["latency_seconds"] for request in answered),
        queue_ms=_median([stage.get("queue", 0.0) for stage in stages]),
        inference_ms=_median([stage.get("inference", 0.0) for stage in stages]),
        refused=refused,
        failed=len(requests) - len(answered) - refused,
    )


def parse_server_timing(header: str) -> dict[str, float]:
    """`decode;dur=1.9, queue;dur=0.8` as milliseconds by stage; what does not fit is left out."""
    stages = {}
    for entry in header.split(","):
        name, _, duration = entry.strip().partition(";dur=")
        try:
            stages[name] = float(duration)
        except ValueError:
            continue
    return stages


def table(summaries: Sequence[Summary]) -> str:
    """The runs as a Markdown table, columns aligned for reading as text."""
    rows = [COLUMNS, *(_cells(summary) for summary in summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    rows.insert(1, tuple("-" * width for width in widths))
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)


def plot_latencies(summaries: Sequence[Summary], path: Path) -> None:
    """Draw the share of requests answered within a time, one curve per run."""
    from matplotlib.figure import Figure  # only here: the table needs no plotting library

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for summary in summaries:
        latencies = sorted(summary.latencies_seconds)
        shares = [(rank + 1) / len(latencies) for rank in range(len(latencies))]
        axes.step([seconds * 1000 for seconds in latencies], shares, where="post", label=summary.name)
    axes.set(xscale="log", xlabel="latency from the due moment (ms)", ylabel="share of answered requests", ylim=(0, 1))
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path)


def main() -> None:
    """Command line: files of requests in, table out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="Files that the load test wrote.")
    parser.add_argument("--plot", type=Path, help="Also draw the latencies into this file (png, svg, pdf).")
    arguments = parser.parse_args()
    summaries = [read_run(path) for path in arguments.runs]
    print(table(summaries))
    if arguments.plot:
        plot_latencies(summaries, arguments.plot)


def _cells(summary: Summary) -> tuple[str, ...]:
    latencies = (f"{summary.latency_ms(share):.1f}" for share in (0.5, 0.95, 0.99))
    stages = (f"{summary.queue_ms:.1f}", f"{summary.inference_ms:.1f}")
    counts = (str(summary.refused), str(summary.failed))
    speeds = (f"{summary.answered_per_second:.1f}", f"{summary.audio_speed:.0f}")
    return (summary.name, str(summary.requests), *speeds, *latencies, *stages, *counts)


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


if __name__ == "__main__":
    main()
