"""Which runtime serves a checkpoint: the fastest on this machine among those whose answers agree with the checkpoint's.

What was measured is kept in a file whose name holds the machine, the versions and the weights; the next start reads it.

    candidates ──► all remembered? ──► yes: the fastest
                        └─► no: start, check and time the others, within a time limit ──► remember
"""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import structlog
import torch
from pydantic import FiniteFloat, TypeAdapter

from model.precision import best_cpu_precision
from server.exports import EXPORTABLE, PACKAGES, installed_version
from server.runtimes.exported import FORMAT
from server.serving_errors import RuntimeDriftError, RuntimeRefusedError
from server.version import VERSION

log = structlog.get_logger()

RUNS = 5
"""Timed batches of one window each; their median counts."""


@dataclass(frozen=True)
class Candidate:
    """A runtime in one precision."""

    runtime: str
    precision: str

    @property
    def target(self) -> str:
        """What `hark export` calls the export that the runtime reads; "" for torch."""
        return "" if self.runtime == "torch" else self.runtime


@dataclass(frozen=True)
class Measured:
    """A candidate's median seconds for one window, or why it cannot serve: for good, or, if not `lasting`, today."""

    runtime: str
    precision: str
    seconds: FiniteFloat | None
    refused: str = ""
    lasting: bool = True

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.runtime, self.precision)


SAFEST = Candidate("torch", "float32")

LESS_EXACT = (Candidate("openvino", "bfloat16"), Candidate("onnx", "int8"), Candidate("torch", "bfloat16"))
"""Served from a CPU only where their arithmetic is asked for. On 200 real clips with `ast-tiny` each misses a bar that
`auto` keeps: 98 % same best labels (99), mAP 0.0055 less (0.005), a score off by 0.0244 (0.02)."""


def candidates(backbone: str, device: str, runtime: str, precision: str) -> list[Candidate]:
    """What may serve this backbone under these settings, the likely fastest first, and torch in float32 at the end.

    "auto" leaves a choice open. Where both are, only networks that can be exported get anything but float32: theirs are
    the precisions that are compared with the checkpoint on more than one sound; an open one is none of LESS_EXACT.
    """
    if runtime == "torch" or backbone not in EXPORTABLE:
        wished = [Candidate("torch", "float32" if precision == "auto" else precision)]
        if runtime not in ("torch", "auto"):
            wished.insert(0, Candidate(runtime, "float32" if precision == "auto" else precision))
    else:
        on_gpu = device.startswith("cuda")
        known = gpu_candidates() if on_gpu else cpu_candidates()
        if backbone == "cnn":  # exported in float32 only
            known = [c for c in known if c.precision == "float32" or not c.target]
        wished = [c for c in known if runtime in ("auto", c.runtime) and precision in ("auto", c.precision)]
        if precision == "auto" and not on_gpu:
            wished = [candidate for candidate in wished if candidate not in LESS_EXACT]
        if not wished:  # asked for by name, so its absence is told
            wished = [Candidate(runtime if runtime != "auto" else "torch", precision)]
    return list(dict.fromkeys([*wished, SAFEST]))


def cpu_candidates() -> list[Candidate]:
    """Eight-bit first; bfloat16 only where the processor multiplies it natively: emulated it is slower than float32."""
    native = best_cpu_precision() == "bfloat16"
    found = []
    if find_spec("openvino"):
        found += [Candidate("openvino", "int8")] + [Candidate("openvino", "bfloat16")] * native
    if find_spec("onnxruntime"):
        found += [Candidate("onnx", "int8")]
    found += [Candidate("torch", "bfloat16")] * native
    if find_spec("onnxruntime"):
        found += [Candidate("onnx", "float32")]
    return [*found, SAFEST]


def gpu_candidates() -> list[Candidate]:
    """bfloat16 before float16: large activations overflow float16's range."""
    found = []
    if find_spec("tensorrt"):
        found += [Candidate("tensorrt", "bfloat16"), Candidate("tensorrt", "float16")]
    found.append(Candidate("torch", "bfloat16"))
    if find_spec("onnxruntime"):
        found += [Candidate("onnx-tensorrt", "float16")] * bool(find_spec("tensorrt"))
        found += [Candidate("onnx", "float16"), Candidate("onnx", "float32")]
    return [*found, Candidate("torch", "float16"), SAFEST]


def machine(device: str) -> dict[str, Any]:
    """What a measurement depends on beside the model: the processor or GPU, threads and versions."""
    capabilities = torch.cpu.get_capabilities()
    packages = {name: installed_version(name) for name in sorted({*PACKAGES.values(), "torch"})}
    gpu = torch.cuda.get_device_name(device) if device.startswith("cuda") else None
    return {
        "processor": capabilities.get("cpu_name") or platform.processor() or platform.machine(),
        "instructions": sorted(name for name, there in capabilities.items() if there is True),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "versions": {"hark": VERSION, "export_format": str(FORMAT), "python": platform.python_version(), **packages},
    }


class Memory:
    """The measurements of one checkpoint on this machine, in a file of the cache; an unwritable cache forgets."""

    def __init__(self, cache: Path, weights_sha256: str, device: str) -> None:
        self._about = {"machine": machine(device), "weights_sha256": weights_sha256, "device": device.partition(":")[0]}
        digest = hashlib.sha256(json.dumps(self._about, sort_keys=True).encode()).hexdigest()
        self._path = cache / "measured" / f"{weights_sha256[:12]}-{digest[:12]}.json"

    def read(self) -> list[Measured]:
        """What was measured here; nothing where the file is missing or cannot be understood."""
        try:
            return TypeAdapter(list[Measured]).validate_python(json.loads(self._path.read_text())["results"])
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def write(self, results: Iterable[Measured]) -> None:
        """Keeps the lasting ones, and what was measured before of other candidates."""
        merged = {result.candidate: result for result in (*self.read(), *results) if result.lasting}
        content = {**self._about, "results": [asdict(result) for result in merged.values()]}
        partial = self._path.with_suffix(f".{os.getpid()}.partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(content, indent=2) + "\n")
            partial.replace(self._path)
        except OSError as error:
            log.warning("measurements cannot be kept", folder=str(self._path.parent), reason=error.strerror)


def rank(wished: Sequence[Candidate], measured: Iterable[Measured]) -> list[Candidate]:
    """The wished ones that were measured, the fastest first, then the safest; the refused are left out."""
    results = {result.candidate: result for result in measured}
    timed = [results[candidate] for candidate in wished if candidate in results]
    fastest = sorted((r for r in timed if r.seconds is not None), key=lambda result: result.seconds or 0.0)
    return list(dict.fromkeys([*(result.candidate for result in fastest), SAFEST]))


def measure(
    wished: Sequence[Candidate],
    time_candidate: Callable[[Candidate], float],
    seconds: float,
    report: Callable[[Measured], None],
) -> list[Measured]:
    """Times one candidate after the other; once `seconds` have passed, those that are left stay unmeasured.

    time_candidate: starts, checks and times it; raises RuntimeRefusedError. Only drift is a lasting refusal.
    """
    started = time.monotonic()
    results: list[Measured] = []
    for candidate in wished:
        if any(result.lasting for result in results) and time.monotonic() - started > seconds:
            log.warning("no time left to measure", runtime=candidate.runtime, precision=candidate.precision)
            continue
        try:
            result = Measured(candidate.runtime, candidate.precision, time_candidate(candidate))
        except RuntimeRefusedError as error:  # beside drift a full disk, say, that is no longer full at the next start
            lasting = isinstance(error, RuntimeDriftError)
            result = Measured(candidate.runtime, candidate.precision, None, str(error), lasting)
        results.append(result)
        report(result)
    return results


def median_seconds(run: Callable[[], object], runs: int = RUNS) -> float:
    """The median time of some calls, after one to warm up."""
    run()
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return median(seconds)
