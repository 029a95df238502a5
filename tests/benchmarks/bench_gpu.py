"""Everything the GPU is measured for, in one run: one short table last, all numbers in a JSON file.

python -m tests.benchmarks.bench_gpu [--sections scan networks ...] [--rehearse] [--out FILE]

Each section's numbers are written as soon as it ends, and sections that the file already holds are not repeated, so a
run that was cut off goes on. --rehearse runs every line with small sizes, on a CPU too; its numbers mean nothing.
"""

import argparse
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import bench_serving_bars, gpu_networks, gpu_scan, gpu_serving
from tests.benchmarks.gpu_timing import copy_bytes_per_second, product_flops_per_second, say
from tests.benchmarks.timing import print_table

Results = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    copy_megabytes: int = 4096
    product: int = 8192
    scan_width: int = 1536
    scan_lengths: tuple[int, ...] = (513, 2049, 4097, 16_385)
    scan_batches: tuple[int, ...] = (1, 8, 64)
    networks: tuple[tuple[str, str], ...] = (("ast", "base"), ("aum", "base"), ("aum", "small"), ("ssam", "base"))
    batches: tuple[int, ...] = (1, 4, 16, 64, 256)
    features_batch: int = 64
    token_size: str = "base"
    tokens: tuple[int, ...] = (512, 1024, 2048, 4096, 8192, 16_384, 32_768)
    training: tuple[tuple[str, str, int], ...] = (
        ("aum", "tiny", 64),
        ("aum", "small", 64),
        ("aum", "base", 32),
        ("ast", "tiny", 64),
        ("ast", "base", 32),
        ("ssam", "base", 32),
    )
    served_depth: int = 12
    served_batch: int = 64
    load_processes: int = 6
    load_clients: int = 64
    load_seconds: float = 20.0
    serving_bars: tuple[str, ...] = ("latency", "upload", "overload", "drain")
    serving: bench_serving_bars.Sizes = field(default_factory=bench_serving_bars.Sizes)


REHEARSAL = Sizes(
    copy_megabytes=8,
    product=128,
    scan_width=64,
    scan_lengths=(9,),
    scan_batches=(1,),
    networks=(("ast", "tiny"), ("aum", "tiny")),
    batches=(1, 2),
    features_batch=2,
    token_size="tiny",
    tokens=(64,),
    training=(("aum", "tiny", 2),),
    served_depth=1,
    served_batch=1,
    load_processes=1,
    load_clients=2,
    load_seconds=1.0,
    serving_bars=(),
)


def main() -> None:
    """Run the sections that are asked for and not yet in the file, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sections", choices=SECTIONS, nargs="+", default=list(SECTIONS))
    parser.add_argument("--rehearse", action="store_true", help="small sizes, only to see that all lines run")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/gpu.json"))
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type != "cuda" and not options.rehearse:
        parser.error("there is no CUDA device here; --rehearse runs the same lines on a CPU")
    results = run_sections(options.sections, device, REHEARSAL if options.rehearse else Sizes(), options.out)
    print_summary(results)


def run_sections(names: list[str], device: torch.device, sizes: Sizes, out: Path) -> Results:
    """The results of the file and of these sections, written after each."""
    results: Results = json.loads(out.read_text()) if out.exists() else {}
    out.parent.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(["machine", *names]):
        if name in results:
            say(f"{name}: already measured, in {out}")
            continue
        say(f"== {name}")
        results[name] = SECTIONS[name](device, sizes, results)
        out.write_text(json.dumps(results, indent=2) + "\n")
    return results


def measure_machine(device: torch.device, sizes: Sizes, results: Results) -> Results:
    """The device, the software, and the two ceilings: memory bandwidth and matrix products."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    bandwidth = copy_bytes_per_second(device, sizes.copy_megabytes)
    peak = product_flops_per_second(device, sizes.product)
    say(f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    say(f"copy {bandwidth / 1e9:.0f} GB/s, bfloat16 products {peak / 1e12:.1f} TFLOP/s")
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
    return {"device": name, **versions, "copy_bytes_per_second": bandwidth, "product_flops_per_second": peak}


def measure_scans(device: torch.device, sizes: Sizes, results: Results) -> list[Results]:
    """Every implementation at every length and batch."""
    names = gpu_scan.available(["cuda", "triton"] if device.type == "cuda" else ["cpu"], device)
    bandwidth = results["machine"]["copy_bytes_per_second"]
    return [
        gpu_scan.measure_scan(names, batch, sizes.scan_width, length, device, bandwidth)
        for length in sizes.scan_lengths
        for batch in sizes.scan_batches
    ]


def measure_networks(device: torch.device, sizes: Sizes, results: Results) -> list[Results]:
    """Clips per second: eager, and on a GPU compiled with CUDA graphs as well."""
    peak = results["machine"]["product_flops_per_second"]
    return [
        point
        for family, size in sizes.networks
        for compiled in ((False, True) if device.type == "cuda" else (False,))
        for point in gpu_networks.measure_throughput(family, size, list(sizes.batches), device, peak, compiled)
    ]


def measure_features(device: torch.device, sizes: Sizes, results: Results) -> Results:
    """Seconds of the log-mel of a batch."""
    seconds = gpu_networks.measure_features(device, sizes.features_batch)
    say(f"features of {sizes.features_batch} clips: {seconds * 1e3:.2f} ms")
    return {"batch": sizes.features_batch, "seconds": seconds}


def measure_tokens(device: torch.device, sizes: Sizes, results: Results) -> list[Results]:
    """AuM against AST by length."""
    return [gpu_networks.measure_tokens(sizes.token_size, tokens, device) for tokens in sizes.tokens]


def measure_training(device: torch.device, sizes: Sizes, results: Results) -> list[Results]:
    """Clips per second of training steps."""
    return [gpu_networks.measure_training(*each, device) for each in sizes.training]


def measure_serving(device: torch.device, sizes: Sizes, results: Results) -> Results:
    """Saturation of a large network and of the bundled default, then the serving bars."""
    precision = "bfloat16" if device.type == "cuda" else "float32"
    load = (sizes.load_processes, sizes.load_clients, sizes.load_seconds)
    with gpu_serving.base_models(sizes.served_depth) as large:
        capacity = [
            gpu_serving.measure_capacity(name, device, precision, sizes.served_batch, *load)
            for name in [*large, "aum-tiny"]
        ]
    return {"capacity": capacity, "bars": gpu_serving.measure_bars(device, sizes.serving, sizes.serving_bars)}


SECTIONS: dict[str, Callable[[torch.device, Sizes, Results], Any]] = {
    "machine": measure_machine,
    "scan": measure_scans,
    "networks": measure_networks,
    "features": measure_features,
    "tokens": measure_tokens,
    "training": measure_training,
    "serving": measure_serving,
}


def print_summary(results: Results) -> None:
    """The bars, each with what was measured."""
    rows = [row for name, summarise in SUMMARIES.items() if name in results for row in summarise(results)]
    print()
    print_table(["what", "measured", "bar"], rows)


def _scan_rows(results: Results) -> list[list[str]]:
    rows = []
    for point in results["scan"]:
        factors = {name: value["by_floor"] for name, value in point.items() if isinstance(value, dict)}
        if factors:
            best = min(factors, key=factors.__getitem__)
            what = f"scan L={point['length']} B={point['batch']}, times the bandwidth floor"
            rows.append([what, f"{factors[best]:.2f} ({best})", "<= 2"])
    return rows


def _network_rows(results: Results) -> list[list[str]]:
    rows = []
    for name in dict.fromkeys(point["network"] for point in results["networks"]):
        best = max((p for p in results["networks"] if p["network"] == name), key=lambda p: p["batch"] / p["seconds"])
        what = f"{name}, best batch {best['batch']} ({best['mode']})"
        measured = f"{best['batch'] / best['seconds']:.0f} clips/s, {best['peak']:.0%} of the matrix peak"
        rows.append([what, measured, ">= 50 %" if name == "ast-base" else ""])
    return rows


def _feature_rows(results: Results) -> list[list[str]]:
    per_clip = results["features"]["seconds"] / results["features"]["batch"]
    points = [p for p in results.get("networks", []) if p["network"].startswith("ast")]
    if not points:
        return []
    network = min(p["seconds"] / p["batch"] for p in points)
    return [["features, share of features and AST", f"{per_clip / (per_clip + network):.1%}", "< 5 %"]]


def _token_rows(results: Results) -> list[list[str]]:
    bars = {4096: ">= 1 (aim 1.6)", 16_384: ">= 2 (aim 3)"}
    return [
        [
            f"AST's time by AuM's, {point['tokens']:,} tokens",
            f"{point['ast']['seconds'] / point['aum']['seconds']:.2f}",
            bars.get(point["tokens"], ""),
        ]
        for point in results["tokens"]
    ]


def _serving_rows(results: Results) -> list[list[str]]:
    rows = []
    for point in results["serving"]["capacity"]:
        busy = "" if point["gpu_busy_share"] is None else f", GPU busy {point['gpu_busy_share']:.0%}"
        times = f"p50 {1000 * point['p50_seconds']:.0f} ms, p99 {1000 * point['p99_seconds']:.0f} ms"
        measured = (
            f"{point['clips_per_second']:.0f} clips/s, {point['share_of_runtime']:.0%} of the runtime's, {times}{busy}"
        )
        rows.append([f"served {point['model']}", measured, ">= 85 %"])
    for bar in results["serving"]["bars"]:
        limit = f"{'<=' if bar['at_most'] else '>='} {bar['limit']:g}"
        rows.append([f"{bar['bar']}: {bar['what']}", f"{bar['value']:.3g}", limit])
    return rows


SUMMARIES: dict[str, Callable[[Results], list[list[str]]]] = {
    "scan": _scan_rows,
    "networks": _network_rows,
    "features": _feature_rows,
    "tokens": _token_rows,
    "serving": _serving_rows,
}


if __name__ == "__main__":
    main()
