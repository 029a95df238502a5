"""What a fine-tuning run is made of: one YAML file, read strictly before any work starts."""

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import yaml


class RecipeError(ValueError):
    """A recipe cannot be used; the message names the field."""


@dataclass(frozen=True)
class Recipe:
    """Every choice of a fine-tuning run; shares lie in [0, 1], and the learning rate is the peak of one cycle.

    `softmax_share` of the loss is cross-entropy against the clip's labels, which ranks them; the rest is the binary
    cross-entropy that makes each score a probability of its own.
    """

    name: str
    backbone: str
    backbone_config: dict[str, Any]
    features: dict[str, Any]
    window_seconds: float
    epochs: int
    batch: int
    learning_rate: float
    seed: int = 0
    validation_fold: int = 4
    warmup_share: float = 0.1
    weight_decay: float = 0.05
    gradient_norm: float = 1.0
    ema_decay: float = 0.999
    mixup_probability: float = 0.5
    mixup_concentration: float = 10.0
    gain_decibels: float = 6.0
    low_pass_share: float = 0.2
    roll: bool = True
    mask_mels: int = 24
    mask_frames: int = 96
    balanced: bool = True
    softmax_share: float = 0.0
    precision: str = "bfloat16"
    about: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        above_zero = ("window_seconds", "epochs", "batch", "learning_rate", "gradient_norm", "mixup_concentration")
        shares = ("warmup_share", "ema_decay", "mixup_probability", "low_pass_share", "softmax_share")
        not_negative = ("weight_decay", "gain_decibels", "mask_mels", "mask_frames", "validation_fold")
        for names, fits, wanted in (
            (above_zero, lambda value: value > 0, "above 0"),
            (shares, lambda value: 0 <= value <= 1, "from 0 to 1"),
            (not_negative, lambda value: value >= 0, "0 or more"),
        ):
            for name in names:
                if not fits(getattr(self, name)):
                    raise RecipeError(f"{name} must be {wanted}, not {getattr(self, name)}")
        if self.precision not in ("float32", "bfloat16"):
            raise RecipeError(f"precision must be float32 or bfloat16, not {self.precision!r}")


def read_recipe(path: str | Path) -> Recipe:
    """Read a YAML recipe.

    Raises: RecipeError for unknown or missing fields or values of the wrong type; OSError if it cannot be read.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} must be a mapping of fields")
    known = {item.name: item for item in fields(Recipe)}
    if unknown := sorted(set(values) - set(known)):
        raise RecipeError(f"{path} has unknown fields: {', '.join(unknown)}")
    required = {name for name, item in known.items() if item.default is MISSING and item.default_factory is MISSING}
    if missing := sorted(required - set(values)):
        raise RecipeError(f"{path} lacks the fields {', '.join(missing)}")
    kinds = get_type_hints(Recipe)
    for name, value in values.items():
        kind = get_origin(kinds[name]) or kinds[name]
        allowed = (int, float) if kind is float else kind
        if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
            raise RecipeError(f"{path}: {name} must be of type {kind.__name__}, got {value!r}")
    try:
        return Recipe(**values)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
