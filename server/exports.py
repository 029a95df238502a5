"""Exports on disk: opening one that a user made, and making those that this machine wants, once, in a cache.

`hark export` does the work in a process of its own, for this room never imports that one. A cached export's name holds
everything that it depends on, so a new version, other weights or another GPU never meet a stale one:

    runtimes/exports/ast-base-58f01ace40f7-openvino-int8-2026.4.1/
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import structlog
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file

from model.checkpoint import (
    CARD,
    CONFIG,
    GOLDEN,
    LABELS,
    WEIGHTS,
    Checkpoint,
    CheckpointConfig,
    Golden,
    file_sha256,
)
from model.features import LogMel
from model.labels import LabelSet
from model.registry import model_cache
from server.runtimes.exported import DESCRIPTION, Export, read_export
from server.serving_errors import BrokenExportError, RuntimeDriftError, RuntimeUnavailableError

log = structlog.get_logger()

EXPORTABLE = ("ast", "ssast", "cnn")
"""Backbones that `hark export` takes; a Mamba's selective scan has no form in the targets."""

PACKAGES = {"onnx": "onnxruntime", "onnx-tensorrt": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt"}
"""What each target's exports depend on the version of."""

DRIFTS = 3
"""What the exporting process ends with where the export computes something else than the checkpoint."""

EXPORT_SECONDS = 1800
"""A TensorRT plan takes minutes; what takes longer than this hangs."""


def runtime_folder(setting: Path | None) -> Path:
    """Where exports and measurements are kept: the setting's folder, or `runtimes` in the cache."""
    return model_cache().parent / "runtimes" if setting is None else setting.expanduser().absolute()


def is_export(folder: Path) -> bool:
    """Tell an export's folder from a checkpoint's."""
    return (folder / DESCRIPTION).is_file()


def open_export(export: Export) -> Checkpoint:
    """The checkpoint that the export was made from, less its network.

    Raises: BrokenExportError.
    """
    folder = export.folder
    try:
        return describe(folder, export.weights_sha256)
    except (OSError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise BrokenExportError(f"the export in {folder} cannot be used: {error}") from error


def describe(folder: Path, weights_sha256: str) -> Checkpoint:
    """What a folder says about its model, without the network: some milliseconds instead of a load of all weights."""
    config = CheckpointConfig.from_json((folder / CONFIG).read_text())
    golden = load_file(folder / GOLDEN)
    return Checkpoint(
        config=config,
        network=torch.nn.Identity(),
        features=LogMel(config.features),
        labels=LabelSet.from_json(folder / LABELS),
        golden=Golden(golden["waveform"], golden["logits"]),
        weights_sha256=weights_sha256,
        folder=folder,
        card=(folder / CARD).read_text(errors="replace"),
    )


def weights_sha256(folder: Path) -> str:
    """The SHA-256 of a checkpoint's weights, without loading them."""
    return file_sha256(folder / WEIGHTS)


def installed_version(package: str) -> str:
    """The version of a package, "none" where it is not installed; nothing is imported."""
    for name in (package, f"{package}-gpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "none"


def cached_folder(cache: Path, checkpoint: Checkpoint, target: str, precision: str, device: str) -> Path:
    """The folder of an export that may or may not be there yet."""
    config = checkpoint.config
    shown = checkpoint.weights_sha256, config.backbone, config.backbone_config, config.features.to_dict()
    digest = hashlib.sha256(json.dumps([*shown, checkpoint.labels.mids]).encode()).hexdigest()
    words = [checkpoint.name, digest[:12], target, precision, installed_version(PACKAGES[target])]
    if target == "tensorrt" and torch.cuda.is_available():
        words.append(torch.cuda.get_device_name(device))
    return cache / "exports" / re.sub(r"[^A-Za-z0-9._]+", "-", "-".join(words))


def get_export(source: Path, checkpoint: Checkpoint, target: str, precision: str, device: str, cache: Path) -> Export:
    """The cached export of a checkpoint's folder, made now where there is none, or one that cannot be read.

    Raises: RuntimeUnavailableError with the reason why none can be made; BrokenExportError if that is broken too.
    """
    folder = cached_folder(cache, checkpoint, target, precision, device)
    with suppress(BrokenExportError):
        return _read_sound(folder, checkpoint)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            try:
                return _read_sound(folder, checkpoint)  # who waited finds the work done
            except BrokenExportError as reason:
                words = {"source": str(source), "to": target, "precision": precision, "reason": str(reason)}
                log.info("exporting, once for this machine", **words)
            shutil.rmtree(folder, ignore_errors=True)
            run_export(_command(source, folder, target, precision, cache), device)
    except OSError as error:
        raise RuntimeUnavailableError(
            f"no export can be kept in {folder.parent} ({error.strerror}); set HARK_RUNTIME_FOLDER to a writable folder"
        ) from error
    return _read_sound(folder, checkpoint)


def _read_sound(folder: Path, checkpoint: Checkpoint) -> Export:
    """Raises: BrokenExportError if a cached export is not there, cannot be read, or is of other weights."""
    if not folder.exists():
        raise BrokenExportError("there is none yet")
    export = read_export(folder)
    if export.weights_sha256 != checkpoint.weights_sha256:
        raise BrokenExportError(f"the export in {folder} was made from other weights")
    return export


def _command(source: Path, folder: Path, target: str, precision: str, cache: Path) -> list[str]:
    arguments = [str(source), str(folder), "--to", target, "--precision", precision]
    if target == "tensorrt":
        arguments += ["--timing-cache", str(cache / "tensorrt.timings")]
    return [sys.executable, "-m", "export.command", *arguments]


def run_export(command: list[str], device: str, seconds: float = EXPORT_SECONDS) -> None:
    """Runs `hark export`; its lines become log lines while it works.

    Raises: RuntimeUnavailableError with its last line where it fails, or takes too long; RuntimeDriftError where
    the export's answers are not the checkpoint's.
    """
    environment = _environment(device)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        ending = threading.Timer(seconds, process.kill)
        ending.start()
        try:
            said = _pass_on(process.stderr or ())
        finally:
            ending.cancel()
    if process.returncode == DRIFTS:
        raise RuntimeDriftError(said)
    if process.returncode:
        raise RuntimeUnavailableError(f"the export failed: {said or f'it ended with code {process.returncode}'}")


def _pass_on(lines: Iterable[str]) -> str:
    """Logs what the process says for people, not its libraries' warnings; answers the last of it."""
    last = ""
    for line in lines:
        if line.startswith("hark: "):
            last = line.removeprefix("hark: ").strip()
            log.info("export", says=last)
    return last


def _environment(device: str) -> dict[str, str] | None:
    """Only the GPU that will run a plan is shown to the process that builds it."""
    if not device.startswith("cuda:"):
        return None
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    index = int(device[5:])
    chosen = shown.split(",")[index] if shown else str(index)
    return {**os.environ, "CUDA_VISIBLE_DEVICES": chosen}
