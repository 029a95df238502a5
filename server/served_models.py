"""Loads what is served: a checkpoint, a runtime that passed the checkpoint's golden clip, and its lane in the engine.

ServingError
├── UnusableDeviceError    this machine, or this torch, has no such device
├── RuntimeDriftError      no runtime's logits agree with the golden clip
└── ModelSettingsError     two models of one name, or a queue too short for a model's window
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog
import torch

from model.checkpoint import Checkpoint, CheckpointConfig, Golden, load
from model.features import AUDIOSET_FBANK, LogMel
from model.labels import audioset_labels
from model.registry import find_checkpoint
from server.lane import Lane
from server.runtimes.base import Runtime, RuntimeInfo
from server.runtimes.fake import FakeRuntime
from server.runtimes.torch_runtime import TorchRuntime
from server.settings import Settings

log = structlog.get_logger()

# Share of the golden logits' range that a runtime may be off. float32 differs by summation order only; 16-bit numbers
# carry 8 (bfloat16) or 11 (float16) significant bits through dozens of layers.
GOLDEN_TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}


class ServingError(Exception):
    """Base of what keeps a model from being served; the message says why in one sentence."""


class UnusableDeviceError(ServingError):
    """The device of the settings does not exist here."""


class RuntimeDriftError(ServingError):
    """A runtime's logits are too far from the golden ones."""


class ModelSettingsError(ServingError):
    """The settings cannot serve this model."""


@dataclass(frozen=True)
class ServedModel:
    """A checkpoint with its place on the device."""

    checkpoint: Checkpoint
    lane: Lane
    golden_max_abs_diff: float

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
    if settings.cpu_threads:
        torch.set_num_threads(settings.cpu_threads)
    models: dict[str, ServedModel] = {}
    for name in settings.models:
        model = load_model(name, settings)
        if model.name in models:
            raise ModelSettingsError(f"two models are called {model.name!r}; give one checkpoint another name")
        models[model.name] = model
    return models


def load_model(name: str, settings: Settings) -> ServedModel:
    """Loads one model by name or path; raises as `load_models`."""
    if settings.runtime == "fake":
        checkpoint = fake_checkpoint(name)
        runtime = FakeRuntime(len(checkpoint.labels), window_delay_seconds=settings.fake_window_seconds)
        return _serve(checkpoint, runtime, "cpu", settings)
    device = choose_device(settings.device)
    checkpoint = load(find_checkpoint(name), device)
    precisions = dict.fromkeys([settings.precision, "float32"])  # in order, float32 once
    for precision in precisions:
        try:
            return _serve(checkpoint, TorchRuntime(checkpoint, device, precision), device, settings)
        except RuntimeDriftError as error:
            log.error("runtime refused", model=checkpoint.name, precision=precision, reason=str(error))
    raise RuntimeDriftError(f"no runtime reproduces the golden clip of model {checkpoint.name!r}")


def choose_device(device: str) -> str:
    """The device that runs models; "auto" means a GPU where there is one.

    Raises: UnusableDeviceError.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if gpus else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UnusableDeviceError(f"there is no device {device!r}; choose auto, cpu, cuda or cuda:1 and so on")
    if device != "cpu" and not gpus:
        raise UnusableDeviceError(f"device {device!r} needs a GPU that torch can use, and there is none; choose cpu")
    if device.startswith("cuda:") and int(device[5:]) >= gpus:
        raise UnusableDeviceError(f"there is no device {device!r}; the last one is cuda:{gpus - 1}")
    return device


def fake_checkpoint(name: str) -> Checkpoint:
    """A checkpoint without weights: AudioSet's labels, ten-second windows side by side."""
    labels = audioset_labels()
    config = CheckpointConfig(
        name=Path(name).name,
        backbone="fake",
        backbone_config={},
        features=AUDIOSET_FBANK,
        window_seconds=10.0,
        hop_seconds=10.0,
    )
    sine = np.sin(2 * np.pi * 440 / 16_000 * np.arange(16_000)).astype(np.float32)
    logits = FakeRuntime(len(labels)).run(sine[None], np.array([len(sine)])).logits[0]
    return Checkpoint(
        config=config,
        network=torch.nn.Identity(),
        features=LogMel(config.features),
        labels=labels,
        golden=Golden(torch.from_numpy(sine), torch.from_numpy(logits)),
        weights_sha256="0" * 64,
        folder=Path(name),
        card="A fake model: its scores follow from the waveform's loudness and zero crossings and mean nothing.\n",
    )


def golden_max_abs_diff(checkpoint: Checkpoint, lane: Lane) -> float:
    """The largest difference of the lane's logits to the golden ones.

    Raises: RuntimeDriftError past the precision's tolerance, NaN included.
    """
    expected = checkpoint.golden.logits.numpy()
    result = lane.run([checkpoint.golden.waveform.numpy()])
    difference = float(np.abs(result.logits[0] - expected).max())
    allowed = GOLDEN_TOLERANCE[lane.runtime.info.precision] * max(1.0, float(np.ptp(expected)))
    if not difference <= allowed:
        raise RuntimeDriftError(f"golden logits are off by {difference:.3g}, more than {allowed:.3g}")
    return difference


def _serve(checkpoint: Checkpoint, runtime: Runtime, device: str, settings: Settings) -> ServedModel:
    config = checkpoint.config
    if config.window_seconds > settings.max_queue_audio_seconds:
        raise ModelSettingsError(
            f"max_queue_audio_seconds is {settings.max_queue_audio_seconds:g}, less than one window of model"
            f" {config.name!r} ({config.window_seconds:g} s)"
        )
    lane = Lane(
        model=config.name,
        runtime=runtime,
        window_samples=config.window_samples,
        sample_rate=config.features.sample_rate,
        classes=len(checkpoint.labels),
        batch_windows=max(1, int(settings.batch_audio_seconds(device) / config.window_seconds)),
    )
    difference = golden_max_abs_diff(checkpoint, lane)
    _warm_up(lane, checkpoint.golden.waveform.numpy(), device)
    return ServedModel(checkpoint, lane, difference)


def _warm_up(lane: Lane, waveform: np.ndarray, device: str) -> None:
    """Runs the batches that traffic will bring (a GPU also tunes for its largest); the cost model starts with them."""
    for windows in (1, lane.batch_windows) if device.startswith("cuda") else (1,):
        lane.run([waveform] * windows)
        started = time.monotonic()
        lane.run([waveform] * windows)
        lane.cost.observe(windows, time.monotonic() - started)
