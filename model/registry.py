"""The backbones Hark knows, and where a checkpoint's name leads: bundled, pulled into the cache, or a folder's path.

A backbone is one file in `model/backbones/` and one line in BACKBONES. Modules are named, not imported, so that loading
one checkpoint never imports the other networks.
"""

import importlib
import os
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from model.published import find_published

PRETRAINED = Path(__file__).parent / "pretrained"
DEFAULT_MODEL = "aum-tiny"


@dataclass(frozen=True)
class Backbone:
    """Where a network (an nn.Module made from its config) and its frozen config dataclass are defined."""

    module: str
    network: str
    config: str


BACKBONES: dict[str, Backbone] = {
    "aum": Backbone("model.backbones.aum_model", "AuM", "AuMConfig"),
    "ast": Backbone("model.backbones.ast_model", "AST", "ASTConfig"),
    "ssast": Backbone("model.backbones.ssast_model", "SSAST", "SSASTConfig"),
    "ssam": Backbone("model.backbones.ssam_model", "SSAM", "SSAMConfig"),
    "cnn": Backbone("model.backbones.cnn_model", "CNN", "CNNConfig"),
}


class UnknownModelError(LookupError):
    """No checkpoint goes by this name, or no backbone does."""


def backbone_module(backbone: str) -> ModuleType:
    """The module where a backbone is defined.

    Raises: UnknownModelError for a backbone that is not in BACKBONES.
    """
    if backbone not in BACKBONES:
        raise UnknownModelError(f"unknown backbone {backbone!r}; known: {', '.join(sorted(BACKBONES))}")
    return importlib.import_module(BACKBONES[backbone].module)


def config_type(backbone: str) -> type[Any]:
    """The frozen dataclass of a backbone's config.

    Raises: UnknownModelError for a backbone that is not in BACKBONES.
    """
    module = backbone_module(backbone)
    return getattr(module, BACKBONES[backbone].config)


def build_network(backbone: str, config: dict[str, Any]) -> nn.Module:
    """Make the network with fresh weights.

    Raises: UnknownModelError for a backbone that is not in BACKBONES; ValueError for missing or unknown config fields.
    """
    kind = config_type(backbone)
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(config) - known):
        raise ValueError(
            f"{kind.__name__} has no field {', '.join(unknown)}; its fields are {', '.join(sorted(known))}"
        )
    try:
        typed = kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in config.items()})
    except TypeError as error:  # a required field is missing
        raise ValueError(f"{kind.__name__}: {error}") from error
    return getattr(backbone_module(backbone), BACKBONES[backbone].network)(typed)


def bundled_models() -> list[str]:
    """Names of the checkpoints that come with Hark, the default first."""
    names = sorted(folder.parent.name for folder in PRETRAINED.glob("*/config.json"))
    return sorted(names, key=lambda name: name != DEFAULT_MODEL)


def model_cache() -> Path:
    """The folder of pulled checkpoints: models/ in HARK_CACHE, by default in ~/.cache/hark."""
    return Path(os.environ.get("HARK_CACHE") or "~/.cache/hark").expanduser().absolute() / "models"


def pulled_models() -> list[str]:
    """Names of the checkpoints in the cache."""
    return sorted(folder.parent.name for folder in model_cache().glob("*/config.json"))


def is_checkpoint(folder: Path) -> bool:
    """Tell a checkpoint's folder from others, by its config.json; whether it is sound shows when it is loaded."""
    return (folder / "config.json").is_file()


def find_checkpoint(name: str) -> Path:
    """The folder of a bundled or pulled checkpoint's name, or of a path to one.

    Raises: UnknownModelError, naming what there is and whether `hark pull` would bring it.
    """
    if name in bundled_models():
        return PRETRAINED / name
    published = find_published(name)
    cached_name = published.name if published else name
    if cached_name in pulled_models():
        return model_cache() / cached_name
    folder = Path(name).expanduser()
    if is_checkpoint(folder):
        return folder
    known = ", ".join(bundled_models() + pulled_models())
    hint = f"; it is published: run hark pull {published.name}" if published else ""
    raise UnknownModelError(f"no model {name!r}: not one of this machine's ({known}) nor a checkpoint folder{hint}")
