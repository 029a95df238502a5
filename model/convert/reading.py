"""Published files to tensors: .pth, .pt, .bin and .safetensors, or a Hugging Face folder, without running their code.

Pickles are read by torch's weights-only unpickler. SSAM's and Vision Mamba's files also hold the arguments of their
training run; those few classes are replaced by an empty stand-in. Whatever else a pickle asks for is refused.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from model.convert.errors import (
    BrokenWeightsError,
    ConversionError,
    TensorMismatchError,
    UnreadableFileError,
    UnsafePickleError,
    list_names,
)

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""What a Hugging Face folder calls its weights, the preferred one first."""

STATE_KEYS = ("model", "state_dict")
"""Where training scripts put the state dict among other things."""

DATA_ONLY_MODULES = ("argparse", "ml_collections", "pathlib")
"""Modules whose classes stand in published files only to describe a training run."""

_DAMAGED = (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError)
"""What torch's readers raise on bytes that are not what they expect."""


@dataclass(frozen=True)
class Source:
    """What was read: float32 tensors by their upstream names, and the JSON files that lay beside them."""

    path: Path
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] | None = None
    preprocessor: Mapping[str, Any] | None = None


class _StandIn:
    """Takes the place of a class that only holds settings, and forgets them."""

    def __new__(cls, *_args: object, **_kwargs: object) -> "_StandIn":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def read_source(path: Path) -> Source:
    """Read a file of tensors, or a folder with model.safetensors or pytorch_model.bin and config.json.

    Raises:
        UnreadableFileError, UnsafePickleError, BrokenWeightsError, TensorMismatchError: as their names say.
    """
    path = _weights_file(path)
    loaded = _load_safetensors(path) if path.suffix == ".safetensors" else _load_pickle(path)
    tensors = _strip_prefixes(_find_state(loaded, path))
    _check_finite(tensors)
    return Source(
        path=path,
        tensors={name: _as_float32(tensor) for name, tensor in tensors.items()},
        config=_read_json(path.parent / "config.json"),
        preprocessor=_read_json(path.parent / "preprocessor_config.json"),
    )


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    if path.is_dir():
        raise UnreadableFileError(f"{path} holds neither {' nor '.join(WEIGHT_FILES)}; name the file of weights itself")
    raise UnreadableFileError(f"{path} does not exist")


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UnreadableFileError(f"{path} is truncated or not a safetensors file: {error}") from error


def _load_pickle(path: Path) -> Any:
    stand_ins = _stand_ins(path)
    try:
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if wanted := re.search(r"GLOBAL (\S+)", str(error)):
            raise _unsafe(path, wanted[1]) from error
        raise UnreadableFileError(f"{path} is truncated or not a PyTorch file") from error
    except _DAMAGED as error:
        raise UnreadableFileError(f"{path} is truncated or not a PyTorch file") from error


def _stand_ins(path: Path) -> list[Callable | tuple[Callable, str]]:
    """A stand-in for each class of DATA_ONLY_MODULES that the file names.

    Raises:
        UnsafePickleError: it names others.
    """
    if not zipfile.is_zipfile(path):
        return []  # PyTorch's old format cannot be looked through beforehand; torch.load refuses what it must
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (pickle.UnpicklingError, *_DAMAGED) as error:
        raise UnreadableFileError(f"{path} is truncated or not a PyTorch file") from error
    if dangerous := [name for name in names if name.split(".")[0] not in DATA_ONLY_MODULES]:
        raise _unsafe(path, list_names(dangerous))
    return [(type("StandIn", (_StandIn,), {}), name) for name in names]


def _unsafe(path: Path, what: str) -> UnsafePickleError:
    return UnsafePickleError(
        f"{path} is a pickle that would run code when read ({what}), so it was refused; "
        "if you trust it, load it yourself and save only its tensors as .safetensors"
    )


def _find_state(loaded: Any, path: Path) -> dict[str, Tensor]:
    """The state dict itself, out of what a training script saved around it."""
    for key in STATE_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise UnreadableFileError(f"{path} holds no state dict of named tensors")
    if others := [str(name) for name, value in loaded.items() if not isinstance(value, Tensor)]:
        raise TensorMismatchError(f"{path} holds entries that are not tensors: {list_names(others)}")
    return {str(name): tensor for name, tensor in loaded.items()}


def _strip_prefixes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the `module.` that DataParallel puts before every name."""
    stripped = {name.removeprefix("module."): tensor for name, tensor in tensors.items()}
    if len(stripped) != len(tensors):
        raise TensorMismatchError("the file holds the same tensors with and without the prefix `module.`")
    return stripped


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise BrokenWeightsError(f"the weights hold NaN or infinity: {list_names(broken)}")


def _as_float32(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.float() if tensor.is_floating_point() else tensor


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except (ValueError, OSError) as error:
        raise ConversionError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConversionError(f"{path} is not a JSON object")
    return content
