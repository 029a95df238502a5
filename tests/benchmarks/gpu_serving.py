"""The server on a GPU over HTTP, its load generator on the same host: capacity, latency, the GPU's idle share, bars."""

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from model.checkpoint import load
from model.registry import find_checkpoint
from server.runtimes.torch_runtime import TorchRuntime
from tests.benchmarks import bench_serving_bars
from tests.benchmarks.bench_serving_client import Reply, closed_loop, make_clip, quantile
from tests.benchmarks.gpu_timing import say, seconds_per_call
from tests.server.live import live_server


def measure_capacity(
    name: str, device: torch.device, precision: str, batch: int, processes: int, clients: int, seconds: float
) -> dict[str, Any]:
    """A model under saturation by `processes` x `clients` callers, by what its runtime does alone."""
    loaded = load(find_checkpoint(name), device)
    clip = make_clip(loaded.config.window_seconds)
    alone = runtime_rate(TorchRuntime(loaded, str(device), precision), loaded.config.window_samples, batch, device)
    budget = str(batch * loaded.config.window_seconds)
    settings = {"RUNTIME": "torch", "DEVICE": str(device), "PRECISION": precision, "MAX_BATCH_AUDIO_SECONDS": budget}
    with live_server(MODELS=name, LOG_LEVEL="error", MAX_REQUESTS="4096", **settings) as live:
        load_from(processes, clients, live.url, 2, clip)
        with watch_gpu(device) as busy:
            started = time.perf_counter()
            replies = load_from(processes, clients, live.url, seconds, clip)
            span = time.perf_counter() - started
    good = [reply for reply in replies if reply.status == 200]
    result = {
        "model": loaded.name,
        "precision": precision,
        "batch": batch,
        "clips_per_second": len(good) / span,
        "share_of_runtime": len(good) / span / alone,
        "p50_seconds": quantile([reply.seconds for reply in good], 0.5),
        "p99_seconds": quantile([reply.seconds for reply in good], 0.99),
        "failed": len(replies) - len(good),
        "gpu_busy_share": busy(),
    }
    say(f"served {loaded.name}: {len(good) / span:.0f} clips/s, {len(good) / span / alone:.0%} of the runtime's own")
    return result


def runtime_rate(runtime: TorchRuntime, samples: int, batch: int, device: torch.device) -> float:
    """Windows per second of a runtime alone, features and copies included."""
    windows = np.random.default_rng(0).uniform(-0.1, 0.1, (batch, samples)).astype(np.float32)
    lengths = np.full(batch, samples, np.int64)
    return batch / seconds_per_call(lambda: runtime.run(windows, lengths), device)


def load_from(processes: int, clients: int, url: str, seconds: float, clip: bytes) -> list[Reply]:
    """Closed-loop callers in processes of their own, because one Python process makes too little load for a GPU."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:  # a fork of a process that uses CUDA breaks
        runs = [pool.submit(closed_loop, url, clients, seconds, clip) for _ in range(processes)]
        return [reply for run in runs for reply in run.result()]


@contextmanager
def watch_gpu(device: torch.device) -> Iterator[Callable[[], float | None]]:
    """Inside, samples the share of time that kernels ran (nvidia-smi); gives the mean, None without a GPU."""
    shares: list[float] = []
    ended = threading.Event()
    query = ["nvidia-smi", f"--id={device.index or 0}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]

    def watch() -> None:
        while device.type == "cuda" and not ended.wait(0.5):
            shares.append(float(subprocess.run(query, capture_output=True, text=True, check=True).stdout) / 100)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: mean(shares) if shares else None
    finally:
        ended.set()
        thread.join()


def measure_bars(device: torch.device, sizes: bench_serving_bars.Sizes, bars: tuple[str, ...]) -> list[dict[str, Any]]:
    """The serving bars that do not need a CPU's raw network, with their servers on the device."""
    serve = bench_serving_bars.serve

    def serve_there(model: str, **settings: str) -> Any:
        return serve(model, **{"DEVICE": str(device), **settings})

    bench_serving_bars.serve = serve_there  # type: ignore[assignment]
    try:
        return [asdict(finding) for bar in bars for finding in bench_serving_bars.BARS[bar](sizes)]
    finally:
        bench_serving_bars.serve = serve


@contextmanager
def base_models(depth: int) -> Iterator[list[str]]:
    """Checkpoints of random weights to serve: an AST of base size, or less deep."""
    with TemporaryDirectory() as folder:
        yield [str(bench_serving_bars.make_ast(Path(folder) / "ast-random", depth))]
