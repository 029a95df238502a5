"""What the GPU benchmarks share: timings of work that runs ahead of Python, and the two ceilings of a device."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_call(run: Callable[[], Any], device: torch.device, calls: int = 10, rounds: int = 5) -> float:
    """The median over the rounds of the seconds per call, `calls` queued at a time; the first two calls do not count.

    Queued calls hide the launch of one behind the run of another, as a busy server does. On a CPU, where this is only
    rehearsed, one call is enough.
    """
    if device.type != "cuda":
        calls = rounds = 1
    for _ in range(2 if device.type == "cuda" else 0):
        run()
    times = []
    for _ in range(rounds):
        synchronise(device)
        started = time.perf_counter()
        for _ in range(calls):
            run()
        synchronise(device)
        times.append((time.perf_counter() - started) / calls)
    return median(times)


def peak_bytes(run: Callable[[], Any], device: torch.device) -> int:
    """How far one call raises the device's allocated memory; 0 where that cannot be told."""
    if device.type != "cuda":
        return 0
    synchronise(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    synchronise(device)
    return torch.cuda.max_memory_allocated(device) - before


def copy_bytes_per_second(device: torch.device, megabytes: int) -> float:
    """Bytes read and written per second by a copy within the device's memory."""
    source = torch.randn(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    seconds = seconds_per_call(lambda: target.copy_(source), device)
    return 2 * source.numel() * 4 / seconds


def product_flops_per_second(device: torch.device, size: int, dtype: torch.dtype = torch.bfloat16) -> float:
    """Floating-point operations per second of one square matrix product of random numbers."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = seconds_per_call(lambda: left @ right, device)
    return 2 * size**3 / seconds


def scan_bytes(u: Tensor, states: int, directions: int) -> int:
    """What a scan must move: u, delta and z in, the output out, and B and C, each once for all directions.

    u is (B, D, L). Two directions read the same u and z; a fused scan over both moves them once.
    """
    batch, width, length = u.shape
    large = 3 + 1  # u, delta, z and the output
    return (large * width + 2 * states) * batch * length * u.element_size()


def say(line: str) -> None:
    """Print at once, so that a command cut off by its time limit has shown what it measured."""
    print(line, flush=True)
