"""A checkpoint on disk: one folder with everything a runtime needs, saved atomically and loaded strictly.

config.json          name, backbone and its sizes, front end, window, activation, per-class thresholds
model.safetensors    the weights, float16 or float32
labels.json          the classes in the order of the logits
golden.safetensors   one short waveform and the float32 logits that these weights give it
README.md            the model card

CheckpointError
  NotACheckpointError      the folder or one of its files is missing or unreadable
  MismatchedWeightsError   tensors missing, unknown, of another shape, or not finite
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.features import FeatureConfig, LogMel
from model.labels import LabelSet
from model.registry import build_network

FORMAT = 1
CONFIG, WEIGHTS, LABELS, GOLDEN, CARD = (
    "config.json",
    "model.safetensors",
    "labels.json",
    "golden.safetensors",
    "README.md",
)


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says why in one sentence."""


class NotACheckpointError(CheckpointError):
    """The folder, or a file in it, is missing or unreadable."""


class MismatchedWeightsError(CheckpointError):
    """The weights do not fit the network that the config describes, or hold NaN or infinity."""


class OccupiedFolderError(CheckpointError):
    """The folder to write holds something that is not a checkpoint's."""


@dataclass(frozen=True)
class CheckpointConfig:
    """What config.json holds. `window_seconds` is the slice of sound that the network sees at once.

    Raises: ValueError for values that no tagging could work with.
    """

    name: str
    backbone: str
    backbone_config: dict[str, Any]
    features: FeatureConfig
    window_seconds: float
    hop_seconds: float
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    thresholds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = (self.window_seconds, self.hop_seconds)
        if not all(isinstance(value, int | float) and value > 0 for value in numbers):
            raise ValueError(f"window_seconds and hop_seconds must be numbers above 0, not {numbers}")
        if self.hop_seconds > self.window_seconds:
            raise ValueError(f"hop_seconds {self.hop_seconds} is longer than the window of {self.window_seconds} s")
        stft_slack = 2 * 400  # a centred STFT counts one frame more, Kaldi's two fewer than samples / hop
        if self.window_samples > self.features.frames * 160 + stft_slack:
            raise ValueError(
                f"a window of {self.window_seconds} s is longer than the {self.features.frames} frames of the front end"
            )
        if self.activation not in ("sigmoid", "softmax"):
            raise ValueError(f"activation must be sigmoid or softmax, not {self.activation!r}")
        if not isinstance(self.thresholds, dict) or not all(_is_score(value) for value in self.thresholds.values()):
            raise ValueError(f"thresholds must give each mid a number from 0 to 1, not {self.thresholds!r}")

    @property
    def window_samples(self) -> int:
        """Samples per window at the checkpoint's sample rate."""
        return round(self.window_seconds * self.features.sample_rate)

    def to_json(self) -> str:
        """Indented JSON, readable by `from_json`."""
        return json.dumps({"format": FORMAT, **asdict(self), "features": self.features.to_dict()}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "CheckpointConfig":
        """Parse strictly.

        Raises: NotACheckpointError for anything but the JSON of exactly these fields.
        """
        try:
            values = json.loads(text)
            if values.pop("format") != FORMAT:
                raise NotACheckpointError(f"{CONFIG} has another format than {FORMAT}; this Hark cannot read it")
            if unknown := sorted(set(values) - {item.name for item in fields(cls)}):
                raise NotACheckpointError(f"{CONFIG} has unknown fields: {', '.join(unknown)}")
            return cls(**{**values, "features": FeatureConfig.from_dict(values["features"])})
        except CheckpointError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NotACheckpointError(f"{CONFIG} cannot be read: {error}") from error


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


@dataclass(frozen=True)
class Golden:
    """A waveform (S,) and the logits (C,) that the weights on disk give it in float32."""

    waveform: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: `features` turns waveforms into log-mel (B, T, F), `network` log-mel into logits (B, C)."""

    config: CheckpointConfig
    network: nn.Module
    features: LogMel
    labels: LabelSet
    golden: Golden
    weights_sha256: str
    folder: Path
    card: str

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config.name


def load(folder: str | Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Load a checkpoint for inference: float32, evaluation mode, on the device.

    Raises: CheckpointError (see the module's tree).
    """
    folder = Path(folder)
    if (folder / "export.json").exists() and not (folder / WEIGHTS).exists():
        raise NotACheckpointError(f"{folder} is an export, which only hark serve reads; name its checkpoint instead")
    config = CheckpointConfig.from_json(_read(folder / CONFIG).decode(errors="replace"))
    try:
        labels = LabelSet.from_json(folder / LABELS)
        network = _empty_network(config)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise NotACheckpointError(f"{folder}: {error}") from error
    load_weights(network, _tensors(folder / WEIGHTS), len(labels))
    golden = _tensors(folder / GOLDEN)
    if set(golden) != {"waveform", "logits"}:
        raise NotACheckpointError(f"{folder / GOLDEN} must hold exactly waveform and logits")
    return Checkpoint(
        config=config,
        network=network.eval().requires_grad_(False).to(device),
        features=LogMel(config.features).to(device),
        labels=labels,
        golden=Golden(golden["waveform"], golden["logits"]),
        weights_sha256=hashlib.sha256(_read(folder / WEIGHTS)).hexdigest(),
        folder=folder,
        card=_read(folder / CARD).decode(errors="replace"),
    )


def load_weights(network: nn.Module, state: Mapping[str, Tensor], classes: int) -> None:
    """Put a state dict into the network as float32; the network may stand on the meta device.

    Raises: MismatchedWeightsError naming the tensors that are missing, unknown, of another shape or not finite, or when
    the network's head has another number of outputs than `classes`.
    """
    expected = network.state_dict()
    problems = [f"missing {name}" for name in expected if name not in state]
    problems += [f"unknown {name}" for name in state if name not in expected]
    for name in expected.keys() & state.keys():
        if state[name].shape != expected[name].shape:
            problems.append(f"{name} has shape {tuple(state[name].shape)}, expected {tuple(expected[name].shape)}")
        elif not torch.isfinite(state[name]).all():
            problems.append(f"{name} holds NaN or infinity")
    outputs = network.config.classes  # type: ignore[union-attr]
    if outputs != classes:
        problems.append(f"the head has {outputs} outputs but there are {classes} labels")
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise MismatchedWeightsError(f"weights do not fit: {'; '.join(sorted(problems)[:8])}{more}")
    network.load_state_dict({name: tensor.to(expected[name].dtype) for name, tensor in state.items()}, assign=True)


def save(
    folder: str | Path,
    config: CheckpointConfig,
    state: Mapping[str, Tensor],
    labels: LabelSet,
    golden_waveform: Tensor,
    card: str,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a checkpoint folder; it appears whole or not at all, and replaces one that stood there.

    golden_waveform: (S,) at the config's sample rate, at most one window; its logits are computed here, from the
    weights as stored (after rounding to `dtype`).

    Raises: OccupiedFolderError; CheckpointError if the parts do not fit together; OSError if the disk refuses.
    """
    folder = Path(folder).absolute()
    require_replaceable(folder)
    stored = {name: _as_stored(tensor, dtype) for name, tensor in state.items()}
    network = _empty_network(config)
    load_weights(network, stored, len(labels))
    network.eval()
    with torch.inference_mode():
        waveform = golden_waveform.detach().float().cpu()
        logits = network(LogMel(config.features)(waveform[None]))[0]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        _save_tensors(stored, new / WEIGHTS)
        _save_tensors({"waveform": waveform, "logits": logits.contiguous()}, new / GOLDEN)
        (new / CONFIG).write_text(config.to_json())
        labels.to_json(new / LABELS)
        (new / CARD).write_text(card)
        _swap(new, folder, Path(temporary) / "old")


def require_replaceable(folder: str | Path) -> None:
    """Check that a checkpoint may be written here: nothing is in the way but an older checkpoint or an empty folder.

    Raises: OccupiedFolderError, before anything of the user's could be lost.
    """
    folder = Path(folder)
    known = {CONFIG, WEIGHTS, LABELS, GOLDEN, CARD}
    others = {path.name for path in folder.iterdir()} - known if folder.is_dir() else set()
    if others or (folder.exists() and not folder.is_dir()) or folder.is_symlink():
        what = f"holds {sorted(others)[0]!r}" if others else "is not a plain folder"
        raise OccupiedFolderError(f"{folder} {what}, which is no part of a checkpoint; name a new folder")


def _swap(new: Path, folder: Path, aside: Path) -> None:
    """Put `new` in the place of `folder`; if that fails, the old one stands there again."""
    if not folder.exists():
        os.replace(new, folder)
        return
    os.replace(folder, aside)
    try:
        os.replace(new, folder)
    except OSError:
        os.replace(aside, folder)
        raise


def golden_waveform(config: CheckpointConfig) -> Tensor:
    """A rising tone in noise, made in code: (S,), at most a second and at most one window."""
    rate = config.features.sample_rate
    seconds = torch.arange(min(rate, config.window_samples)) / rate
    noise = torch.randn(len(seconds), generator=torch.Generator().manual_seed(0))
    return 0.3 * torch.sin(2 * torch.pi * (200 + 1000 * seconds) * seconds) + 0.05 * noise


def _empty_network(config: CheckpointConfig) -> nn.Module:
    """The network without memory or initial values, which would take longer than loading the weights."""
    with torch.device("meta"):
        return build_network(config.backbone, config.backbone_config)


def _as_stored(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    path.touch()
    mode = path.stat().st_mode  # safetensors writes for the owner alone, but a server may run as another user
    try:
        save_file(dict(tensors), path)
    except SafetensorError as error:  # a full disk, for one
        raise OSError(f"{path} cannot be written: {error}") from error
    path.chmod(mode)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotACheckpointError(f"{path} cannot be read: {error.strerror}") from error


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise NotACheckpointError(f"{path} is not a readable safetensors file: {error}") from error
