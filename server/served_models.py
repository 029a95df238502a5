"""Loads what is served: a checkpoint, a runtime that passed the checkpoint's golden clip, and its lane in the engine.

    candidates of the settings ──► open ──► golden check ──► warm-up ──► served
                                    └────────────┴────────────┴── refused: logged, counted, shown in /info; the next one

The reasons are drawn in `serving_errors.py`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import structlog
import torch

from model.checkpoint import Checkpoint, CheckpointConfig, CheckpointError, load
from model.cpu_threads import end_team
from server.devices import choose_device, choose_devices
from server.fake_checkpoint import fake_checkpoint
from server.golden import GOLDEN_TOLERANCE, check_golden
from server.lane import Lane
from server.runtime_choice import (
    SAFEST,
    Candidate,
    Measured,
    Memory,
    candidates,
    measure,
    median_seconds,
    rank,
)
from server.runtimes.base import Runtime, RuntimeInfo
from server.runtimes.fake import FakeRuntime
from server.serving_errors import (
    ModelSettingsError,
    RuntimeDriftError,
    RuntimeRefusedError,
    ServingError,
    UnusableDeviceError,
)
from server.settings import Settings
from server.source import Source

__all__ = [
    "GOLDEN_TOLERANCE",
    "ModelSettingsError",
    "Refusal",
    "RuntimeDriftError",
    "ServedModel",
    "ServingError",
    "UnusableDeviceError",
    "choose_device",
    "load_model",
    "load_models",
]

log = structlog.get_logger()

CORES = torch.get_num_threads()
BRIEF_SECONDS = 10.0  # of audio in a batch on a CPU, unless many wait
LONG_SECONDS = 0.2
"""A window that takes longer on a CPU is timed once: start-up would be felt to wait for the second."""


@dataclass(frozen=True)
class Refusal:
    """A runtime that should have served and may not, and why."""

    runtime: str
    precision: str
    reason: str


@dataclass(frozen=True)
class ServedModel:
    """A checkpoint with its place on the device; `refused` are the runtimes that were tried before this one."""

    checkpoint: Checkpoint
    lane: Lane
    golden_max_abs_diff: float
    refused: tuple[Refusal, ...] = ()

    @property
    def name(self) -> str:
        return self.checkpoint.name

    @property
    def sample_rate(self) -> int:
        return self.checkpoint.config.features.sample_rate

    @property
    def info(self) -> RuntimeInfo:
        return self.lane.runtime.info


def load_models(settings: Settings) -> dict[str, ServedModel]:
    """Loads, checks and warms up every model of the settings, in their order; takes seconds.

    Raises: ServingError; UnknownModelError and CheckpointError (`model/`).
    """
    models: dict[str, ServedModel] = {}
    for name in settings.models:
        model = load_model(name, settings)
        if model.name in models:
            raise ModelSettingsError(f"two models are called {model.name!r}; give one checkpoint another name")
        models[model.name] = model
    return models


def load_model(name: str, settings: Settings) -> ServedModel:
    """Loads one model by name or path, of a checkpoint or of an export; raises as `load_models`."""
    _take_threads(settings)
    try:
        return _load_model(name, settings)
    finally:
        end_team()  # the golden check ran here; from now on batches do, in the engine's threads


def _take_threads(settings: Settings) -> None:
    torch.set_num_threads(settings.cpu_threads or CORES)  # a new thread has what the engine's last batch used


def _load_model(name: str, settings: Settings) -> ServedModel:
    if settings.runtime == "fake":
        checkpoint = fake_checkpoint(name)
        runtime = FakeRuntime(len(checkpoint.labels), window_delay_seconds=settings.fake_window_seconds)
        return _serve(checkpoint, [runtime], "cpu", settings)
    devices = choose_devices(settings.device)
    source = Source(name, settings.runtime_folder, load)
    described = source.described
    order, refused = _in_order(source, devices[0], settings)
    for candidate in order:
        try:
            model = _open_and_serve(source, candidate, devices, settings)
        except RuntimeRefusedError as error:
            refused.append(_refuse(described.name, candidate, str(error)))
        else:
            return replace(model, refused=tuple(refused))
    raise RuntimeDriftError(f"no runtime can serve model {described.name!r}: {refused[-1].reason}")


def measure_runtimes(source: Source, wished: Sequence[Candidate], settings: Settings) -> list[Measured]:
    """Starts, checks and times the candidates on the first device, one after the other, and remembers the results."""
    _take_threads(settings)
    device = choose_devices(settings.device)[0]

    def time_candidate(candidate: Candidate) -> float:
        model = _open_and_serve(source, candidate, [device], settings)
        samples = model.lane.window_samples
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, samples).astype(np.float32)
        try:
            return median_seconds(lambda: model.lane.run([noise]))
        finally:
            model.lane.runtime.close()

    measured = measure(wished, time_candidate, settings.runtime_measure_seconds, _report)
    Memory(source.cache, source.described.weights_sha256, device).write(measured)
    return measured


def _in_order(source: Source, device: str, settings: Settings) -> tuple[list[Candidate], list[Refusal]]:
    """The candidates to try, the fastest first, and those refused before; they are measured where they were not yet."""
    if source.export is not None:
        return [Candidate(source.export.runtime, source.export.precision)], []
    described = source.described
    wished = candidates(described.config.backbone, device, settings.runtime, settings.precision)
    torch_too = settings.runtime == "auto" and settings.precision in ("auto", "float32")
    choices = wished if torch_too else wished[:-1]  # torch in float32 is the last resort
    if len(choices) < 2:
        return wished, []
    known = Memory(source.cache, described.weights_sha256, device).read()
    missing = [candidate for candidate in choices if candidate not in {result.candidate for result in known}]
    if missing:
        log.info(
            "measuring runtimes, once for this machine; `hark bench runtimes` does it beforehand",
            model=described.name,
            candidates=len(missing),
            at_most_seconds=settings.runtime_measure_seconds,
        )
        known += measure_runtimes(source, missing, settings)
    refused = [result for result in known if result.refused and result.candidate in choices]
    return rank(choices, known), [_refuse(described.name, result.candidate, result.refused) for result in refused]


def _refuse(model: str, candidate: Candidate, reason: str) -> Refusal:
    refusal = Refusal(candidate.runtime, candidate.precision, reason)
    log.error("runtime refused", model=model, **vars(refusal))
    return refusal


def _report(result: Measured) -> None:
    if result.seconds is None:
        log.warning(
            "runtime cannot serve here", runtime=result.runtime, precision=result.precision, reason=result.refused
        )
    else:
        milliseconds = round(result.seconds * 1000, 1)
        log.info("runtime measured", runtime=result.runtime, precision=result.precision, milliseconds=milliseconds)


def _open_and_serve(source: Source, candidate: Candidate, devices: Sequence[str], settings: Settings) -> ServedModel:
    """Opens, checks and warms up a candidate; whatever one raises that is not the last resort refuses it.

    The libraries' errors have no common base, and a bug in one runtime must not keep the next from serving.
    """
    try:
        return _open_on_devices(source, candidate, devices, settings)
    except (ServingError, CheckpointError):
        raise
    except Exception as error:
        if candidate == SAFEST:
            raise
        log.error("runtime failed", runtime=candidate.runtime, precision=candidate.precision, exc_info=error)
        raise RuntimeRefusedError(f"it failed with {type(error).__name__}; the log has the traceback") from error


def _open_on_devices(source: Source, candidate: Candidate, devices: Sequence[str], settings: Settings) -> ServedModel:
    """Opens the runtime on every device; what was opened is closed again where one of them is refused."""
    runtimes: list[Runtime] = []
    try:
        for device in devices:
            largest = _batch_windows(source.described.config, device, settings)
            opened = source.open(candidate, device, largest, bool(settings.separate_process))
            runtimes += [opened] * opened.most_batches
        return _serve(source.described, runtimes, devices[0], settings)
    except BaseException:
        for runtime in set(runtimes):
            runtime.close()
        raise


def _serve(checkpoint: Checkpoint, runtimes: Sequence[Runtime], device: str, settings: Settings) -> ServedModel:
    config = checkpoint.config
    if config.window_seconds > settings.max_queue_audio_seconds:
        raise ModelSettingsError(
            f"max_queue_audio_seconds is {settings.max_queue_audio_seconds:g}, less than one window of model"
            f" {config.name!r} ({config.window_seconds:g} s)"
        )
    lane = Lane(
        model=config.name,
        runtimes=tuple(runtimes),
        window_samples=config.window_samples,
        sample_rate=config.features.sample_rate,
        classes=len(checkpoint.labels),
        batch_windows=_batch_windows(config, device, settings),
        brief_windows=None if device.startswith("cuda") else _windows_in(BRIEF_SECONDS, config),
    )
    places = [place for place, runtime in enumerate(runtimes) if runtime not in runtimes[:place]]  # each runtime once
    differences = []
    for index in places:
        for batches in range(min(2, runtimes[index].most_batches), 0, -1):  # side by side, where it may, and alone
            started = time.monotonic()
            differences.append(check_golden(checkpoint, lane, index, batches))
            seconds = time.monotonic() - started
        _warm_up(lane, checkpoint.golden.waveform.numpy(), device, index, seconds)
    return ServedModel(checkpoint, lane, max(differences))


def _batch_windows(config: CheckpointConfig, device: str, settings: Settings) -> int:
    return _windows_in(settings.batch_audio_seconds(device), config)


def _windows_in(seconds: float, config: CheckpointConfig) -> int:
    return max(1, int(seconds / config.window_seconds))


def _warm_up(lane: Lane, waveform: np.ndarray, device: str, index: int, first_seconds: float) -> None:
    """Runs the batches that traffic will bring (a GPU also tunes for its largest); the cost model starts with them.

    The golden check has run the batch of one window before, in `first_seconds`, so that the second is timed here. A
    long one needs no second on a CPU, unless a scan's compiled code was read meanwhile: what else the first call alone
    does takes some 10 ms.
    """
    on_gpu = device.startswith("cuda")
    if first_seconds > LONG_SECONDS and not on_gpu and lane.runtimes[index].info.scan is None:
        lane.cost.observe(1, first_seconds)
        return
    for windows in (1, lane.batch_windows) if on_gpu else (1,):
        if windows > 1:
            lane.run([waveform] * windows, index)
        started = time.monotonic()
        lane.run([waveform] * windows, index)
        lane.cost.observe(windows, time.monotonic() - started)
