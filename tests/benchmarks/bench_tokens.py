"""AuM against AST of the same size on the CPU over growing numbers of tokens: seconds and peak memory of one clip.

python -m tests.benchmarks.bench_tokens [--size base] [--precision float32] [--out FOLDER]

Both cut the spectrogram into patches of 16 x 16 without overlap: 512 tokens are 10 seconds, 8,192 are 164. A point is
measured in processes of its own, AuM and AST in turn, so that one's memory is not the other's.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from model.backbones.ast_model import AST, SIZES, ASTConfig
from model.backbones.aum_model import AuM, AuMConfig
from model.precision import Precision, to_precision
from tests.benchmarks.timing import print_table, write_results

TOKENS = (512, 1024, 2048, 4096, 8192)
NETWORKS = ("aum", "ast")
Point = dict[str, float]


def main() -> None:
    """Measure every point, print the table, write results and plot; with --measure, be the process of one point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--measure", choices=NETWORKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        network = make_network(options.measure, options.size, options.tokens[0])
        print(json.dumps(measure(to_precision(network, options.precision), options.tokens[0])))
        return
    points = [measure_both(tokens, options.size, options.precision, options.rounds) for tokens in options.tokens]
    title = f"{options.size}, {options.precision}, {torch.get_num_threads()} cores"
    name = f"aum-and-ast-{options.size}-{options.precision}"
    report(options.tokens, points)
    results = {"size": options.size, "precision": options.precision, "tokens": options.tokens, "points": points}
    write_results(options.out / f"{name}.json", results)
    plot(options.tokens, points, title, options.out / f"{name}.png")


def make_network(name: str, size: str, tokens: int) -> nn.Module:
    """An untrained network for as many tokens."""
    torch.manual_seed(0)
    frames = tokens // 8 * 16
    if name == "aum":
        return AuM(AuMConfig(classes=527, frames=frames, width=SIZES[size]["width"])).eval()
    return AST(ASTConfig(classes=527, frames=frames, stride_mels=16, stride_frames=16, **SIZES[size])).eval()


def measure(network: nn.Module, tokens: int) -> Point:
    """Seconds of the second forward pass of one clip, and how far both raised this process's peak memory."""
    log_mel = torch.randn(1, tokens // 8 * 16, 128)
    before = _peak_bytes()
    with torch.inference_mode():
        network(log_mel)
        started = time.perf_counter()
        network(log_mel)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_bytes": _peak_bytes() - before}


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure_both(tokens: int, size: str, precision: Precision, rounds: int) -> dict[str, Point]:
    """The median point of each network, measured in turn in fresh processes."""
    measured: dict[str, list[Point]] = {name: [] for name in NETWORKS}
    for _ in range(rounds):
        for name in NETWORKS:
            options = ["--measure", name, "--size", size, "--precision", precision, "--tokens", str(tokens)]
            command = [sys.executable, "-m", "tests.benchmarks.bench_tokens", *options]
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            measured[name].append(json.loads(output))
    keys = ("seconds", "peak_bytes")
    return {name: {key: median(point[key] for point in points) for key in keys} for name, points in measured.items()}


def report(tokens: list[int], points: list[dict[str, Point]]) -> None:
    """Print the table."""
    rows = []
    for count, point in zip(tokens, points, strict=True):
        aum, ast = point["aum"], point["ast"]
        times = [f"{x['seconds'] * 1e3:.0f}" for x in (aum, ast)] + [f"{ast['seconds'] / aum['seconds']:.2f}"]
        memory = [f"{x['peak_bytes'] / 1e6:.0f}" for x in (aum, ast)]
        rows.append([f"{count:,}", *times, *memory])
    print_table(["tokens", "AuM ms", "AST ms", "AST / AuM", "AuM peak MB", "AST peak MB"], rows)


def plot(tokens: list[int], points: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draw time and memory over the number of tokens."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, key, unit, scale in zip(
        panels, ("seconds", "peak_bytes"), ("seconds per clip", "peak memory, MB"), (1, 1e-6), strict=True
    ):
        for name, label, marker in (("aum", "AuM", "o"), ("ast", "AST", "s")):
            panel.plot(tokens, [point[name][key] * scale for point in points], marker=marker, label=label)
        panel.set(xscale="log", yscale="log", xlabel="tokens", ylabel=unit, xticks=tokens)
        panel.set_xticklabels([f"{count:,}" for count in tokens])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend()
    figure.suptitle(f"AuM and AST, {title}")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"drawn in {path}")


if __name__ == "__main__":
    main()
