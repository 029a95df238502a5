"""The `hark` commands that make checkpoints: pull, convert, finetune, export.

They call the rooms that do the work; each is imported where its command needs it.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from server.console import CommandError, as_command_errors, download_progress, print_note
from server.packing import pack
from server.runtime_commands import export
from server.teach_command import teach
from server.training_commands import finetune, pretrain


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
    for command in (pull, convert, pack, pretrain, finetune, export, teach):
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
    with as_command_errors():
        converted = convert_checkpoint(from_format.value, source, folder, flags)
    if converted.left_out:
        print_note(f"left out, as it has no place in a tagger: {', '.join(converted.left_out)}")
    print_note(f"wrote {folder}")
