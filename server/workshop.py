"""The `hark` commands that make checkpoints: pull, convert, finetune, export.

They call the rooms that do the work; each is imported where its command needs it.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from server.console import CommandError, download_progress, print_note


class SourceFormat(StrEnum):
    """Whose checkpoint file it is."""

    HF_AST = "hf-ast"
    AST = "ast"
    AUM = "aum"
    SSAM = "ssam"
    SSAST = "ssast"


class Dataset(StrEnum):
    """What a checkpoint was fine-tuned on, where its file does not tell."""

    AUDIOSET = "audioset"
    ESC50 = "esc50"
    SPEECH_COMMANDS = "speech-commands"
    VGGSOUND = "vggsound"
    VOXCELEB = "voxceleb"


class Target(StrEnum):
    """What a checkpoint is exported to."""

    ONNX = "onnx"


class Pooling(StrEnum):
    """Which tokens an SSAST classifier averages."""

    MEAN = "mean"
    CLASS = "class"


class Activation(StrEnum):
    """How logits become scores."""

    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    for command in (pull, convert, finetune, export):
        app.command()(command)


def pull(
    name: Annotated[str, typer.Argument(help="A published checkpoint; `hark models --published` lists them.")],
) -> None:
    """Download a published checkpoint, verify and convert it, and keep it for `--model NAME`."""
    from model.hub import PullError
    from model.hub import pull as pull_checkpoint
    from model.registry import UnknownModelError

    try:
        with download_progress() as progress:
            folder = pull_checkpoint(name, progress=progress)
    except UnknownModelError as error:
        raise typer.BadParameter(str(error)) from error
    except PullError as error:
        raise CommandError(str(error)) from error
    print_note(f"{name} is in {folder}")


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="The published file, or a Hugging Face model folder.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The checkpoint folder to write.")],
    from_format: Annotated[SourceFormat, typer.Option("--from", help="Whose format SRC is.")],
    labels: Annotated[Path | None, typer.Option(help="CSV of class names, in the order of the head.")] = None,
    dataset: Annotated[
        Dataset | None, typer.Option(help="What it was fine-tuned on, where the file does not tell.")
    ] = None,
    stride: Annotated[int | None, typer.Option(help="Patch stride, where the file leaves it open.")] = None,
    frames: Annotated[
        int | None, typer.Option(help="Frames of its spectrogram, where the file leaves it open.")
    ] = None,
    mels: Annotated[int | None, typer.Option(help="Mel bands of its spectrogram.")] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads per block.")] = None,
    pooling: Annotated[Pooling | None, typer.Option(help="Tokens an SSAST classifier averages.")] = None,
    activation: Annotated[Activation | None, typer.Option(help="How its logits become scores.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; by default the folder's.")] = None,
) -> None:
    """Convert a published AST, AuM, SSAM or SSAST checkpoint to a Hark checkpoint folder."""
    from model.convert.conversion import Flags, convert_checkpoint
    from model.convert.geometry import Hints

    hints = Hints(stride, frames, mels, heads, pooling.value if pooling else None)
    flags = Flags(hints, labels, dataset and dataset.value, activation.value if activation else None, name)
    with _as_command_errors():
        converted = convert_checkpoint(from_format.value, source, folder, flags)
    if converted.left_out:
        print_note(f"left out, as it has no place in a tagger: {', '.join(converted.left_out)}")
    print_note(f"wrote {folder}")


def finetune(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as those in model/training/recipes.")],
    manifest: Annotated[Path, typer.Option(help="CSV of labelled clips; files are relative to it.")],
    out: Annotated[Path, typer.Option(help="The checkpoint folder to write when training has ended.")],
    run: Annotated[Path | None, typer.Option(help="Folder of the resumable state; by default runs/NAME.")] = None,
) -> None:
    """Train a tagger from a recipe and a manifest; the same command goes on after a stop."""
    from model.checkpoint import require_replaceable
    from model.training.bundle import bundle
    from model.training.data import read_manifest
    from model.training.finetune import finetune as train
    from model.training.finetune import manifest_labels
    from model.training.recipe import read_recipe

    with _as_command_errors():
        chosen = read_recipe(recipe)
        require_replaceable(out)
        state = run or Path("runs") / chosen.name
        train(chosen, manifest, state, print_note)
        bundle(chosen, state, manifest_labels(read_manifest(manifest)), out)
    print_note(f"wrote {out}")


def export(
    checkpoint: Annotated[str, typer.Argument(help="A model's name or a checkpoint folder.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    to: Annotated[Target, typer.Option(help="The target.")] = Target.ONNX,
) -> None:
    """Export an AST or SSAST checkpoint for a faster runtime, and check that it still gives the same logits."""
    command = [sys.executable, "-m", "export.command", checkpoint, str(folder)]  # this room does not import that one
    raise typer.Exit(subprocess.run(command).returncode)


@contextmanager
def _as_command_errors() -> Iterator[None]:
    """The rooms' own errors, which are one sentence each, become the command's."""
    try:
        yield
    except (ValueError, LookupError, ImportError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or 'a file'}: {error.strerror or error}") from error
