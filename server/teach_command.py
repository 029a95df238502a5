"""`hark teach`: what `PUT /classes/{name}` does, from folders and without a server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.console import CommandError, as_command_errors, print_note, write_out

if TYPE_CHECKING:
    import numpy as np

    from model.checkpoint import Checkpoint
    from server.own_classes import Lesson

MOST_CLASSES = 100
FolderOption = Annotated[
    Path | None,
    typer.Option(envvar="HARK_CLASSES_FOLDER", help="Folder of taught classes; by default classes/ in HARK_CACHE."),
]


def teach(
    name: Annotated[str, typer.Argument(help="The label to teach.")],
    folder: Annotated[Path, typer.Argument(help="Folder of clips of it, at least three.")],
    negatives: Annotated[Path | None, typer.Option(help="Folder of clips without it.")] = None,
    model: Annotated[str | None, typer.Option(help="The model to teach, a name or a checkpoint folder.")] = None,
    classes: FolderOption = None,
) -> None:
    """Teach a model a label from a folder of clips; `hark classify` and the next `hark serve` know it."""
    from model.checkpoint import load
    from model.registry import DEFAULT_MODEL, find_checkpoint
    from server.own_classes import ClassRoom, classes_folder, describe_quality

    with as_command_errors():
        checkpoint = load(find_checkpoint(model or DEFAULT_MODEL))
        room = ClassRoom(classes_folder(classes), MOST_CLASSES)
        room.check(checkpoint, name)
        own = room.teach(checkpoint, read_lesson(checkpoint, name, folder, negatives))
    print_note(f"version {own.version} of {own.name!r} for {checkpoint.name} is in {classes_folder(classes)}")
    write_out(describe_quality(own) + "\n")


def read_lesson(checkpoint: "Checkpoint", name: str, folder: Path, negatives: Path | None) -> "Lesson":
    """The folders' clips, embedded.

    Raises: CommandError naming the file that is no sound, or saying how many clips are too few or too many; OSError.
    """
    from model.background import background_clips, background_waveforms
    from model.teaching import Clip
    from server.own_classes import GIVEN, LEAST_CLIPS, MOST_CLIPS, Lesson

    files = _files(folder)
    without = _files(negatives) if negatives is not None else []
    if len(files) < LEAST_CLIPS or len(files) + len(without) > MOST_CLIPS:
        raise CommandError(
            f"a class needs at least {LEAST_CLIPS} clips, and at most {MOST_CLIPS} together with those without it;"
            f" {folder} has {len(files)}" + (f" and {negatives} {len(without)}" if negatives else "")
        )
    positives = [Clip(_embed_file(checkpoint, path)) for path in files]
    given = [Clip(_embed_file(checkpoint, path), GIVEN) for path in without]
    config = checkpoint.config
    background = _embed(checkpoint, background_waveforms(config.features.sample_rate, config.window_samples))
    return Lesson(name, positives, [*given, *background_clips(background)])


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _embed_file(checkpoint: "Checkpoint", path: Path) -> "np.ndarray":
    from model.audio import AudioError
    from model.background import teaching_windows

    config = checkpoint.config
    try:
        return _embed(checkpoint, teaching_windows(path, config.features.sample_rate, config.window_samples))
    except AudioError as error:
        raise CommandError(f"{path}: {error}") from error


def _embed(checkpoint: "Checkpoint", waveforms: "list[np.ndarray]") -> "np.ndarray":
    """Embeddings (W, D) of windows' waveforms, one by one: a clip has few."""
    import numpy as np

    from model.pipeline import window_outputs
    from model.windows import Window

    return np.concatenate([window_outputs(checkpoint, [Window(0, 0, waveform)])[1] for waveform in waveforms])
