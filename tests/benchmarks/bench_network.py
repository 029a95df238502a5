"""Times a whole AuM on the CPU: against its matrix products alone, and against the same network with other scans.

python -m tests.benchmarks.bench_network [--size base] [--rounds 7] [--out FILE]

"Products" are the network's linear layers and its patch convolution on tensors of the same shapes, and nothing else.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from model.backbones import mamba
from model.backbones.aum_model import AuM, AuMConfig
from model.precision import to_precision
from tests.benchmarks.reference_scans import mamba_reference_scan
from tests.benchmarks.timing import median_ratio, median_seconds, print_table, time_rounds, write_results

WIDTHS = {"tiny": 192, "small": 384, "base": 768}


def main() -> None:
    """Measure, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=WIDTHS, default="base")
    parser.add_argument("--variant", choices=["none", "v1", "v2"], default="v1")
    parser.add_argument("--frames", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/network.json"))
    options = parser.parse_args()
    torch.manual_seed(0)
    config = AuMConfig(
        classes=527,
        width=WIDTHS[options.size],
        variant=options.variant,
        frames=options.frames,
        depth=options.depth,
    )
    network = AuM(config).eval()
    log_mel = torch.randn(1, config.frames, config.mels)
    with torch.inference_mode():
        rounds = time_rounds(candidates(network, log_mel), options.rounds)
    write_results(options.out, {"size": options.size, "variant": options.variant, **report(rounds)})


def candidates(network: AuM, log_mel: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The network and its products in both precisions, and with mamba_ssm's reference scan."""
    lowered = to_precision(network, "bfloat16")

    def with_reference() -> Tensor:
        with reference_scans():
            return network(log_mel)

    return {
        "float32": lambda: network(log_mel),
        "float32 products": lambda: products(network, log_mel),  # type: ignore[arg-type]
        "bfloat16": lambda: lowered(log_mel),
        "bfloat16 products": lambda: products(lowered, log_mel),  # type: ignore[arg-type]
        "float32, mamba_ssm's reference scan": with_reference,
    }


def products(network: AuM, log_mel: Tensor) -> Tensor:
    """The network's matrix products on inputs of the right shapes."""
    tokens = network.patch_embed(log_mel)
    x = torch.cat([tokens, tokens[:, :1]], dim=1).to(tokens.dtype)
    for layer in network.layers:
        mixer = layer.mixer
        signal, gate = (functional.linear(x, weight) for weight in mixer.in_proj.weight.chunk(2))  # type: ignore[union-attr, operator]
        branches = [(mixer.x_proj, mixer.dt_proj)]
        if mixer.variant == "v2":
            branches.append((mixer.x_proj_b, mixer.dt_proj_b))
        for x_proj, dt_proj in branches:
            projected = x_proj(signal)  # type: ignore[operator]
            functional.linear(projected[..., : mixer.rank], dt_proj.weight)  # type: ignore[union-attr, index, misc, arg-type]
        x = mixer.out_proj(gate)  # type: ignore[operator]
    return network.head(x[:, 0].float())


@contextmanager
def reference_scans() -> Iterator[None]:
    """Inside, mixers scan as mamba_ssm does without a GPU."""
    ours = mamba.selective_scan, mamba.bidirectional_scan

    def both(u: Tensor, step: Tensor, A: Tensor, A_reverse: Tensor, *others: Tensor, **options: bool) -> Tensor:
        forwards = mamba_reference_scan(u, step, A, *others, **options)
        return forwards + mamba_reference_scan(u, step, A_reverse, *others, reverse=True, **options)

    mamba.selective_scan, mamba.bidirectional_scan = mamba_reference_scan, both  # type: ignore[assignment]
    try:
        yield
    finally:
        mamba.selective_scan, mamba.bidirectional_scan = ours


def report(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """Print seconds and the ratios that matter; answer them."""
    names = list(rounds[0])
    seconds = {name: median_seconds(rounds, name) for name in names}
    ratios = {
        "float32 by its products": median_ratio(rounds, "float32", "float32 products"),
        "bfloat16 by its products": median_ratio(rounds, "bfloat16", "bfloat16 products"),
        "mamba_ssm's reference by float32": median_ratio(rounds, names[-1], "float32"),
        "float32 by bfloat16": median_ratio(rounds, "float32", "bfloat16"),
    }
    print_table(["", "ms"], [[name, f"{value * 1e3:.1f}"] for name, value in seconds.items()])
    print()
    print_table(["ratio", ""], [[name, f"{value:.2f}"] for name, value in ratios.items()])
    return {"seconds": seconds, "ratios": ratios}


if __name__ == "__main__":
    main()
