"""The `hark` commands that train: finetune and pretrain, from a recipe and a corpus."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from server.console import CommandError, as_command_errors, print_note

RECIPES = Path(__file__).parents[1] / "model" / "training" / "recipes"

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML recipe, or the name of one in model/training/recipes.")
]
ManifestOption = Annotated[
    Path, typer.Option(help="The corpus: a CSV or JSON manifest, AudioSet's segments, a folder.")
]
OutOption = Annotated[Path, typer.Option(help="The checkpoint folder to write when training has ended.")]
RunOption = Annotated[Path | None, typer.Option(help="Folder of the resumable state; by default runs/NAME.")]
ClipsOption = Annotated[Path | None, typer.Option(help="Folder of the clips of AudioSet's segments.")]
LabelsOption = Annotated[Path | None, typer.Option(help="CSV of class names, in the order of the outputs.")]
ValidationOption = Annotated[Path | None, typer.Option(help="A second corpus, to validate on.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the recipe; may be repeated."),
]
DevicesOption = Annotated[int | None, typer.Option(min=1, help="Processes on this machine, each with its device.")]
NodesOption = Annotated[int | None, typer.Option(min=1, help="Machines that train together.")]
PrecisionOption = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
CurvesOption = Annotated[bool, typer.Option(help="Write curves for TensorBoard to the run's folder.")]


@dataclass(frozen=True)
class Options:
    """What both commands take."""

    recipe: str
    manifest: Path
    out: Path
    run: Path | None
    clips: Path | None
    labels: Path | None
    validation: Path | None
    overrides: list[str]
    tensorboard: bool


def finetune(
    recipe: RecipeArgument,
    manifest: ManifestOption,
    out: OutOption,
    run: RunOption = None,
    clips: ClipsOption = None,
    labels: LabelsOption = None,
    validation: ValidationOption = None,
    overrides: SetOption = None,
    devices: DevicesOption = None,
    nodes: NodesOption = None,
    precision: PrecisionOption = None,
    tensorboard: CurvesOption = True,
) -> None:
    """Train a tagger from a recipe and a corpus; the same command goes on after a stop."""
    changes = _overrides(overrides, devices, nodes, precision)
    _train("finetune", Options(recipe, manifest, out, run, clips, labels, validation, changes, tensorboard))


def pretrain(
    recipe: RecipeArgument,
    manifest: ManifestOption,
    out: OutOption,
    run: RunOption = None,
    clips: ClipsOption = None,
    labels: LabelsOption = None,
    validation: ValidationOption = None,
    overrides: SetOption = None,
    devices: DevicesOption = None,
    nodes: NodesOption = None,
    precision: PrecisionOption = None,
    tensorboard: CurvesOption = True,
) -> None:
    """Pre-train an SSAM or SSAST without labels; the checkpoint starts the training of taggers."""
    changes = _overrides(overrides, devices, nodes, precision)
    _train("pretrain", Options(recipe, manifest, out, run, clips, labels, validation, changes, tensorboard))


def _overrides(given: list[str] | None, devices: int | None, nodes: int | None, precision: str | None) -> list[str]:
    named = {"machine.devices": devices, "machine.nodes": nodes, "precision": precision}
    return [*(given or []), *(f"{name}={value}" for name, value in named.items() if value is not None)]


def _train(task: str, options: Options) -> None:
    from model.checkpoint import require_replaceable
    from model.training.bundle import bundle
    from model.training.recipe import read_recipe
    from model.training.sounds import Place, read_parts

    with as_command_errors():
        chosen = read_recipe(find_recipe(options.recipe), options.overrides)
        if chosen.task != task:
            raise CommandError(f"{options.recipe} is a recipe for hark {chosen.task}")
        folder = options.run or Path("runs") / chosen.name
        require_replaceable(options.out)
        _require_place(options.out, folder)
        place = Place(options.manifest, options.clips, options.labels, options.validation)
        finished = _trainer(task)(chosen, place, folder, print_note, options.tensorboard)
        if not finished.main:
            return
        bundle(chosen, folder, read_parts(chosen, place).labels, options.out)
    print_note(f"wrote {options.out}")


def _require_place(out: Path, run: Path) -> None:
    """Check that the checkpoint can be written when the run has ended.

    Raises: CommandError, OSError.
    """
    if out.resolve() == run.resolve():
        raise CommandError(f"{out} is the folder of the run; name another one for the checkpoint (--out)")
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}-"):
        pass


def _trainer(task: str) -> Callable[..., Any]:
    from model.training.finetune import finetune as train_tagger
    from model.training.pretrain import pretrain as train_features

    return train_features if task == "pretrain" else train_tagger


def find_recipe(name: str) -> Path:
    """The file of a recipe, given as a path or by the name of one that comes with Hark."""
    bundled = RECIPES / f"{name}.yaml"
    return bundled if bundled.is_file() and not Path(name).is_file() else Path(name)
