"""What the benchmark scripts share: rounds of interleaved timings, medians of ratios, tables and result files."""

import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from model.precision import best_cpu_precision

Rounds = list[dict[str, float]]
"""Seconds by name, one dict per round."""


def time_rounds(
    candidates: Mapping[str, Callable[[], Any]], rounds: int, warm_up: bool = True, calls: int = 1
) -> Rounds:
    """Time every candidate once per round, one after the other, so that a noisy moment strikes them all alike.

    With several `calls` in a row the median of them counts: that of caches and memory pages which are already warm, as
    they are inside a network, and not left cold by another candidate's hundred megabytes.
    """
    if warm_up:
        for run in candidates.values():
            run()
    return [
        {name: median(_seconds(run) for _ in range(calls)) for name, run in candidates.items()} for _ in range(rounds)
    ]


def _seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def median_seconds(rounds: Rounds, name: str) -> float:
    """The candidate's median over the rounds."""
    return median(seconds[name] for seconds in rounds)


def median_ratio(rounds: Rounds, numerator: str, denominator: str) -> float:
    """The median over the rounds of one candidate's time by another's in the same round."""
    return median(seconds[numerator] / seconds[denominator] for seconds in rounds)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    capabilities = torch.cpu.get_capabilities()
    return {
        "processor": capabilities.get("cpu_name") or platform.processor(),
        "cores": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "fast_bfloat16": best_cpu_precision() == "bfloat16",
        "torch": torch.__version__,
    }


def print_table(header: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, ["-" * width for width in widths], *rows]:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write the results with the machine they were measured on, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), **results}, indent=2) + "\n")
    print(f"written to {path}")
