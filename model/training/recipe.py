"""What a training run is made of: one YAML file, read strictly before any work starts.

TrainingRecipe      network, sound, augmentation, optimiser, schedule, hardware
  Recipe            + labels, loss, teachers: `hark finetune`
  PretrainRecipe    + masks and objectives: `hark pretrain`
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from model.training.optimizers import OptimizerConfig
from model.training.sampling import Sampling
from model.training.schedules import ScheduleConfig
from model.training.strict import FieldError, build, read_yaml

RecipeError = FieldError
"""A recipe cannot be used; the message names the field."""

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Machine:
    """Where a run happens: processes per machine, machines, and how they work together (Lightning Fabric's words).

    With accelerator "auto", a CUDA device where there is one.
    """

    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: Literal["auto", "ddp"] = "auto"

    def __post_init__(self) -> None:
        if self.devices < 1 or self.nodes < 1:
            raise FieldError("machine: devices and nodes must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """Every choice that all training shares; shares lie in [0, 1], and the learning rate is the schedule's peak.

    `batch` counts the clips of one optimiser step, on all devices together. They are taken in micro-batches of
    `micro_batch` clips (0: a batch divided by the processes), each with random numbers of its own, so that a run gives
    the same on any number of processes that divides batch / micro_batch; a process with several accumulates gradients.
    """

    name: str
    task: Literal["finetune", "pretrain"] = "finetune"
    backbone: str
    backbone_config: dict[str, Any]
    features: dict[str, Any]
    window_seconds: float
    epochs: int
    batch: int
    micro_batch: int = 0
    learning_rate: float
    seed: int = 0
    validation_fold: int = 4
    validation_share: float = 0.1
    initial: str = ""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    warmup_share: float = 0.1
    weight_decay: float = 0.05
    gradient_norm: float = 1.0
    ema_decay: float = 0.999
    keep: Literal["ema", "last", "mean", "best"] = "ema"
    mean_epochs: int = 0
    precision: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    machine: Machine = field(default_factory=Machine)
    measure_epochs: int = 1
    measure_steps: int = 0
    save_steps: int = 0
    save_minutes: float = 10.0

    reading: Literal["memory", "files", "stream"] = "memory"
    workers: int = 0
    on_bad_file: Literal["skip", "stop"] = "skip"
    balanced: bool = True
    sampling: Sampling | None = None

    random_place: bool = True
    roll: bool = True
    gain_decibels: float = 6.0
    low_pass_share: float = 0.2
    high_pass_share: float = 0.0
    background_share: float = 0.0
    background_decibels: Numbers = (10.0, 30.0)
    noise_share: float = 0.0
    noise_decibels: Numbers = (10.0, 40.0)
    mixup_probability: float = 0.5
    mixup_concentration: float = 10.0
    mixup_partner: Literal["batch", "corpus"] = "batch"
    warp_frames: int = 0
    mask_count: int = 1
    mask_mels: int = 24
    mask_frames: int = 96
    spectrogram_noise: bool = False

    about: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        above_zero = (
            "window_seconds",
            "epochs",
            "batch",
            "learning_rate",
            "mixup_concentration",
            "mask_count",
            "measure_epochs",
        )
        shares = (
            *("validation_share", "warmup_share", "ema_decay", "mixup_probability"),
            *("low_pass_share", "high_pass_share", "background_share", "noise_share"),
        )
        not_negative = (
            *("micro_batch", "weight_decay", "gradient_norm", "validation_fold", "mean_epochs", "workers"),
            *("measure_steps", "save_steps", "save_minutes", "gain_decibels"),
            *("warp_frames", "mask_mels", "mask_frames"),
        )
        self.check(("seed",), lambda value: abs(value) < 10**13, "a number of at most 13 digits")
        self.check(above_zero, lambda value: value > 0, "above 0")
        self.check(shares, lambda value: 0 <= value <= 1, "from 0 to 1")
        self.check(not_negative, lambda value: value >= 0, "0 or more")
        self._check_combinations()

    def check(self, names: Iterable[str], fits: Callable[[Any], bool], wanted: str) -> None:
        """Check that each of these fields fits.

        Raises: RecipeError naming the first that does not.
        """
        for name in names:
            if not fits(getattr(self, name)):
                raise RecipeError(f"{name} must be {wanted}, not {getattr(self, name)}")

    def check_untouched(self, names: Iterable[str], why: str) -> None:
        """Check that fields which nothing would read are as they were.

        Raises: RecipeError naming the first that is not.
        """
        defaults = {item.name: item.default for item in fields(self)}
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise RecipeError(f"{name} {why}")

    def _check_combinations(self) -> None:
        for name in ("background_decibels", "noise_decibels"):
            value = getattr(self, name)
            if len(value) != 2 or value[0] > value[1]:
                raise RecipeError(f"{name} must be two rising numbers, not {list(value)}")
        if self.micro_batch and self.batch % self.micro_batch:
            raise RecipeError(f"micro_batch {self.micro_batch} does not divide batch {self.batch}")
        if (self.keep == "mean") != (self.mean_epochs > 0) or self.mean_epochs > self.epochs:
            raise RecipeError("keep: mean goes with mean_epochs, from 1 to the number of epochs")
        if self.keep == "ema" and not self.ema_decay:
            raise RecipeError("keep: ema needs an ema_decay above 0")
        if self.sampling and not self.balanced and self.sampling != "shuffle":
            raise RecipeError(f"balanced: false contradicts sampling: {self.sampling}")
        if self.schedule.kind != "one_cycle":
            self.check_untouched(
                ["warmup_share"], "belongs to schedule.kind one_cycle; others have a warm-up of their own"
            )
        if self.mixup_partner == "corpus" and self.reading == "stream":
            raise RecipeError("mixup_partner: corpus needs random access; a stream can only mix within a batch")

    @property
    def sampling_kind(self) -> Sampling:
        """How clips are drawn: `sampling`, or what `balanced` says where that is open."""
        return self.sampling or ("rarity" if self.balanced else "shuffle")


@dataclass(frozen=True, kw_only=True)
class Recipe(TrainingRecipe):
    """Every choice of a fine-tuning run.

    With loss "blend", `softmax_share` of it is cross-entropy against the clip's labels, which ranks them; the rest is
    the binary cross-entropy that makes each score a probability of its own, summed over the classes. "bce" and
    "cross_entropy" are the papers': one of the two alone, the former averaged over the classes.

    `teachers` are checkpoints (names or folders) that hear the same batch; `distil_share` of the loss is against the
    mean of their scores. `initial` is where the weights start: a checkpoint, the folder of a run, or a file of ImageNet
    weights (DeiT for AST, Vision Mamba for AuM). `classes`, where it is set, must be the number of the data's labels.
    """

    classes: int = 0
    loss: Literal["blend", "bce", "cross_entropy"] = "blend"
    softmax_share: float = 0.0
    start_at_priors: bool = True
    best_by: Literal["map", "accuracy", "esc50_top1"] = "map"
    teachers: tuple[str, ...] = ()
    distil_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(("softmax_share", "distil_share"), lambda value: 0 <= value <= 1, "from 0 to 1")
        self.check(("classes",), lambda value: value >= 0, "0 or more")
        if self.task != "finetune":
            raise RecipeError("task must be finetune")
        if self.loss != "blend" and self.softmax_share:
            raise RecipeError(f"softmax_share belongs to loss: blend, not to loss: {self.loss}")
        if bool(self.teachers) != (self.distil_share > 0):
            raise RecipeError("teachers and a distil_share above 0 go together")
        if self.loss == "cross_entropy" and self.start_at_priors:
            raise RecipeError("start_at_priors is for scores of their own; loss: cross_entropy needs it false")


OBJECTIVE_FIELDS = {
    "ssam": ("mask_ratio", "masked_only", "normalise_patches"),
    "ssast": ("masked_patches", "clusters", "objective", "reconstruction_weight"),
}
"""What only one backbone's pre-training reads."""


@dataclass(frozen=True, kw_only=True)
class PretrainRecipe(TrainingRecipe):
    """Every choice of a self-supervised run; the backbone decides the objective.

    ssam    `mask_ratio` of the patches is masked; mean squared error over all patches, as the official code has it, or
            with `masked_only` over those; `normalise_patches` standardises each target patch
    ssast   `masked_patches` of them, in `clusters` or evenly; InfoNCE plus 10 times the mean squared error, or only one

    Where the front end gives more frames than the network sees, clips are cut at a random place, or repeated if short.
    """

    task: Literal["finetune", "pretrain"] = "pretrain"
    validation_fold: int = 0
    mask_ratio: float = 0.5
    masked_only: bool = False
    normalise_patches: bool = False
    masked_patches: int = 400
    clusters: bool = True
    objective: Literal["joint", "discriminative", "generative"] = "joint"
    reconstruction_weight: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(("masked_patches", "reconstruction_weight"), lambda value: value > 0, "above 0")
        self.check(("mask_ratio",), lambda value: 0 < value < 1, "above 0 and below 1")
        if self.task != "pretrain":
            raise RecipeError("task must be pretrain")
        if self.backbone not in ("ssam", "ssast"):
            raise RecipeError(f"backbone {self.backbone} has no pre-training here; ssam and ssast have")
        if self.mixup_probability or self.background_share:
            raise RecipeError("mix-up and backgrounds blend labels; in pre-training there are none: set them to 0")
        other = "ssast" if self.backbone == "ssam" else "ssam"
        self.check_untouched(OBJECTIVE_FIELDS[other], f"belongs to {other}, and the backbone is {self.backbone}")


def read_recipe(path: str | Path, overrides: Iterable[str] = ()) -> TrainingRecipe:
    """Read a YAML recipe, with `key=value` overrides (dots lead into mappings, values are YAML).

    Raises: RecipeError for unknown or missing fields or values of the wrong type; OSError if it cannot be read.
    """
    try:
        values = read_yaml(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} must be a mapping of fields")
    for override in overrides:
        _override(values, override)
    kind = PretrainRecipe if values.get("task") == "pretrain" else Recipe
    try:
        return build(kind, values)
    except FieldError as error:
        raise RecipeError(f"{path}: {error}") from error


def _override(values: dict[str, Any], override: str) -> None:
    """Put one `key=value` in its place.

    Raises: RecipeError if it is no such pair, or leads through something that is no mapping.
    """
    path, equals, text = override.partition("=")
    *outer, last = path.strip().split(".")
    if not equals or not last:
        raise RecipeError(f"an override is KEY=VALUE, not {override!r}")
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{override!r} has a value that is not YAML: {error}") from error
    for name in outer:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise RecipeError(f"{override!r}: {name} is not a mapping")
    values[last] = value
