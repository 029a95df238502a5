"""Times the CPU's selective scan against a tidy torch loop and mamba_ssm's reference, and over growing lengths.

python -m tests.benchmarks.bench_scan [--rounds 11] [--out FILE]
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.selective_scan import bidirectional_scan, selective_scan
from tests.benchmarks.reference_scans import loop_scan, mamba_reference_scan
from tests.benchmarks.timing import median_ratio, median_seconds, print_table, time_rounds, write_results

LENGTHS = (512, 2048, 8192, 32_768, 65_536)
CHANNELS_OF_LENGTHS = 256


def main() -> None:
    """Measure, print the tables, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--length", type=int, default=513)
    parser.add_argument("--width", type=int, default=1536)
    parser.add_argument("--states", type=int, default=16)
    parser.add_argument("--longest", type=int, default=LENGTHS[-1])
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/scan.json"))
    options = parser.parse_args()
    size = (options.width, options.states, options.length)
    results = {
        "forward": compare_forward(*size, options.rounds),
        "backward": compare_backward(*size, options.rounds),
        "lengths": compare_lengths([length for length in LENGTHS if length <= options.longest], options.rounds),
    }
    write_results(options.out, results)


def make_inputs(width: int, states: int, length: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Inputs of one sequence as a network hands them over: channels side by side in memory."""
    generator = torch.Generator().manual_seed(0)

    def rows(*shape: int) -> Tensor:
        return torch.randn(1, length, *shape, generator=generator).to(dtype).transpose(1, 2)

    return {
        "u": rows(width),
        "delta": rows(width) * 0.5 - 4,
        "A": -torch.arange(1.0, states + 1).repeat(width, 1),
        "B": rows(states),
        "C": rows(states),
        "D": torch.ones(width),
        "z": rows(width),
        "delta_bias": torch.zeros(width),
    }


def compare_forward(width: int, states: int, length: int, rounds: int) -> dict[str, Any]:
    """Forward, without gradients: ours in both precisions and both directions, the loop, mamba_ssm's reference."""
    inputs, short = make_inputs(width, states, length), make_inputs(width, states, length, torch.bfloat16)
    candidates = {
        "cpu": lambda: selective_scan(**inputs, delta_softplus=True),
        "cpu, bfloat16": lambda: selective_scan(**short, delta_softplus=True),
        "cpu, both directions": lambda: bidirectional_scan(**inputs, A_reverse=inputs["A"], delta_softplus=True),
        "torch loop": lambda: loop_scan(**inputs),
        "mamba_ssm's reference": lambda: mamba_reference_scan(**inputs),
    }
    with torch.inference_mode():
        timed = time_rounds(candidates, rounds, calls=5)
    return _report(f"Forward, L={length} D={width} N={states}", timed, list(candidates), "cpu")


def compare_backward(width: int, states: int, length: int, rounds: int) -> dict[str, Any]:
    """The backward pass alone: ours against autograd through the loop."""
    inputs = {name: tensor.detach().requires_grad_() for name, tensor in make_inputs(width, states, length).items()}
    leaves = list(inputs.values())
    outputs = {"cpu": selective_scan(**inputs, delta_softplus=True), "torch loop": loop_scan(**inputs)}
    out_grad = torch.randn(outputs["cpu"].shape)
    candidates = {
        name: lambda out=out: torch.autograd.grad(out, leaves, out_grad, retain_graph=True)
        for name, out in outputs.items()
    }
    return _report("Backward", time_rounds(candidates, rounds, calls=3), list(candidates), "cpu")


def compare_lengths(lengths: list[int], rounds: int) -> dict[str, Any]:
    """Nanoseconds per step and channel over growing lengths: a flat line means linear scaling."""
    candidates = {}
    for length in lengths:
        inputs = make_inputs(CHANNELS_OF_LENGTHS, 16, length)
        candidates[str(length)] = lambda inputs=inputs: selective_scan(**inputs, delta_softplus=True)
    with torch.inference_mode():
        timed = time_rounds(candidates, rounds, calls=5)
    per_step = {length: median_seconds(timed, str(length)) / (length * CHANNELS_OF_LENGTHS) * 1e9 for length in lengths}
    print(f"\nLength, D={CHANNELS_OF_LENGTHS} N=16\n")
    print_table(
        ["steps", "ms", "ns per step and channel"],
        [[str(n), f"{median_seconds(timed, str(n)) * 1e3:.2f}", f"{per_step[n]:.3f}"] for n in lengths],
    )
    return {"nanoseconds_per_step_and_channel": per_step}


def _report(title: str, timed: list[dict[str, float]], names: list[str], ours: str) -> dict[str, Any]:
    seconds = {name: median_seconds(timed, name) for name in names}
    ratios = {name: median_ratio(timed, name, ours) for name in names}
    print(f"\n{title}\n")
    rows = [[name, f"{seconds[name] * 1e3:.2f}", f"{ratios[name]:.2f}"] for name in names]
    print_table(["", "ms", f"times {ours}"], rows)
    return {"seconds": seconds, "times_ours": ratios}


if __name__ == "__main__":
    main()
