"""Times an AST on the CPU in every runtime against transformers' own model, and compares answers on real clips.

python -m tests.benchmarks.bench_runtimes [--size base] [--rounds 7] [--only "openvino int8"] [--cold] [--out FILE]
python -m tests.benchmarks.bench_runtimes --checkpoint NAME --manifest CSV [--clips 200]

transformers runs as it comes, in float32, on log-mel that is there already; Hark's runtimes are timed from waveform to
logits, as the server calls them. Needs `pip install transformers`; the server does not.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from export.clips import read_clips
from export.parity import Exported, measure_parity
from model import checkpoint
from model.backbones.ast_model import SIZES
from model.checkpoint import Checkpoint, CheckpointConfig, golden_waveform
from model.features import AUDIOSET_FBANK
from model.labels import audioset_labels
from model.registry import build_network, find_checkpoint
from server.runtime_choice import Candidate, cpu_candidates
from server.runtimes.base import Runtime
from server.serving_errors import RuntimeRefusedError
from server.source import Source
from tests.benchmarks.bench_serving_client import Client, make_clip
from tests.benchmarks.timing import Rounds, median_ratio, median_seconds, print_table, time_rounds, write_results
from tests.server.live import live_server

REFERENCE = "transformers float32"
BATCH = 8

COLD_STARTS = 5


def main() -> None:
    """Measure what was asked for, print tables, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--checkpoint", help="A trained AST, for accuracy; without it, random weights are timed.")
    parser.add_argument("--manifest", type=Path, help="CSV of labelled clips to compare answers on.")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--only", help="One runtime and precision, as the table names it, instead of all.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cache", type=Path, default=Path("build/benchmarks/runtimes"))
    parser.add_argument("--cold", action="store_true", help="Also time servers from their start to the first answer.")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks/runtimes.json"))
    options = parser.parse_args()
    folder = find_checkpoint(options.checkpoint) if options.checkpoint else random_ast(options.size, options.cache)
    source = Source(str(folder), options.cache, checkpoint.load)
    runtimes = open_all(source, options.only)
    results: dict[str, Any] = {"model": source.described.name}
    if options.manifest:
        results["accuracy"] = report_accuracy(source.loaded("cpu"), runtimes, options.manifest, options.clips)
    else:
        results |= report_speed(source.described, runtimes, options.rounds)
    if options.cold:
        results["cold_start_seconds"] = report_cold_starts(folder, options.cache, list(runtimes))
    write_results(options.out, results)


def random_ast(size: str, cache: Path) -> Path:
    """An AST for AudioSet with random weights, made once."""
    folder = cache / f"ast-{size}-random"
    if not folder.exists():
        torch.manual_seed(0)
        config = CheckpointConfig(f"ast-{size}-random", "ast", {**SIZES[size]}, AUDIOSET_FBANK, 10.0, 10.0)
        state = build_network("ast", config.backbone_config).state_dict()
        checkpoint.save(folder, config, state, audioset_labels(), golden_waveform(config), "Random weights.\n")
    return folder


def open_all(source: Source, only: str | None = None) -> dict[Candidate, Runtime]:
    """Every runtime that can serve the model on this CPU, exported first where that was not done yet."""
    opened = {}
    for candidate in [c for c in cpu_candidates() if only in (None, _name(c))]:
        try:
            opened[candidate] = source.open(candidate, "cpu", BATCH)
        except RuntimeRefusedError as error:
            print(f"{candidate.runtime} {candidate.precision}: {error}", file=sys.stderr)
    return opened


def report_speed(described: Checkpoint, runtimes: dict[Candidate, Runtime], rounds: int) -> dict[str, Any]:
    """Seconds for one window and each of a batch of eight, and how many times the reference's speed that is."""
    single = {_name(candidate): _call(runtime, described, 1) for candidate, runtime in runtimes.items()}
    batches = {
        f"{_name(candidate)} x{BATCH}": _call(runtime, described, BATCH) for candidate, runtime in runtimes.items()
    }
    with torch.inference_mode():
        timed = time_rounds({REFERENCE: transformers_model(described), **single, **batches}, rounds)
    rows, speeds = [], {}
    for name in (REFERENCE, *single):
        speeds[name] = median_ratio(timed, REFERENCE, name)
        each = _batch_gain(timed, name) if name != REFERENCE else None
        gain = "" if each is None else f"{each:.2f}"
        rows.append([name, f"{median_seconds(timed, name) * 1000:.0f}", f"{speeds[name]:.2f}", gain])
    print_table(["", "ms", "times the reference's speed", f"a clip of {BATCH} by a clip alone"], rows)
    return {"rounds": timed, "speed_by_reference": speeds}


def transformers_model(described: Checkpoint) -> Callable[[], Any]:
    """transformers' AST of the same size with its default settings, on one window's log-mel."""
    from transformers import ASTConfig, ASTForAudioClassification

    sizes, frames = described.config.backbone_config, described.config.features.frames
    width = sizes.get("width", 768)
    config = ASTConfig(
        hidden_size=width,
        num_hidden_layers=sizes.get("depth", 12),
        num_attention_heads=sizes.get("heads", 12),
        intermediate_size=4 * width,
        max_length=frames,
        num_labels=len(described.labels),
    )
    network = ASTForAudioClassification(config).eval()
    log_mel = torch.randn(1, frames, described.config.features.mels)
    return lambda: network(log_mel).logits


def report_accuracy(
    loaded: Checkpoint, runtimes: dict[Candidate, Runtime], manifest: Path, most: int
) -> dict[str, dict[str, Any]]:
    """Each runtime's answers beside the checkpoint's in float32, on real clips."""
    clips = read_clips(manifest, loaded, most)
    found = {}
    for candidate, runtime in runtimes.items():
        found[_name(candidate)] = vars(measure_parity(loaded, on_log_mel(runtime), clips))
    columns = ["max_abs_diff", "max_score_diff", "top1_agreement", "top5_agreement", "map_diff"]
    rows = [[name, *(f"{parity[column]:.4f}" for column in columns)] for name, parity in found.items()]
    print_table([f"{len(clips.waveforms)} clips", *columns], rows)
    return found


def on_log_mel(runtime: Runtime) -> Exported:
    """The runtime's network alone, so that its answers are compared on the very same log-mel."""

    def run(log_mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            logits, embeddings = runtime._infer(torch.from_numpy(log_mel))  # type: ignore[attr-defined]
        return np.asarray(logits), np.asarray(embeddings)

    return run


def report_cold_starts(folder: Path, cache: Path, chosen: list[Candidate]) -> dict[str, list[float]]:
    """Seconds that each of some servers took, one after the other, the exports being there."""
    seconds = {_name(c): [cold_start(folder, cache, c) for _ in range(COLD_STARTS)] for c in chosen}
    rows = [[name, f"{median(each):.1f}", ", ".join(f"{one:.1f}" for one in each)] for name, each in seconds.items()]
    print_table(["cold start", "median, s", "each"], rows)
    return seconds


def cold_start(folder: Path, cache: Path, candidate: Candidate) -> float:
    """Seconds from the start of a process, `hark serve`, to its first answer over HTTP, for a clip of 10 seconds."""
    clip = make_clip(10)
    asked = {"RUNTIME": candidate.runtime, "PRECISION": candidate.precision, "RUNTIME_FOLDER": str(cache.absolute())}
    started = time.perf_counter()
    with live_server("--model", str(folder.absolute()), **asked, DEVICE="cpu") as live:
        reply = Client(live.url, keep=False).post(clip)
        seconds = time.perf_counter() - started
    served = json.loads(reply.body)["provenance"]
    if (served["runtime"], served["precision"]) != (candidate.runtime, candidate.precision):
        raise RuntimeError(f"{_name(candidate)} was refused")
    return seconds


def _call(runtime: Runtime, described: Checkpoint, windows: int) -> Callable[[], Any]:
    samples = described.config.window_samples
    waveforms = np.random.default_rng(0).uniform(-0.5, 0.5, (windows, samples)).astype(np.float32)
    lengths = np.full(windows, samples, np.int64)
    return lambda: runtime.run(waveforms, lengths)


def _batch_gain(timed: Rounds, name: str) -> float:
    """Throughput in batches by throughput alone: above 1, batching pays."""
    return BATCH * median_ratio(timed, name, f"{name} x{BATCH}")


def _name(candidate: Candidate) -> str:
    return f"{candidate.runtime} {candidate.precision}"


if __name__ == "__main__":
    main()
