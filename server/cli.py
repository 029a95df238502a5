"""The `hark` command: serve, classify, models, bench, and those of `workshop.py` and `evaluation_commands.py`.

Exit code 0, or 1 for a failure and 2 for bad usage, with one sentence on stderr.
Modules that import torch are imported where a command needs them, so that `hark --help` and bad usage answer at once.
"""

import errno
import gc
import json
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from server import evaluation_commands
from server.console import (
    CommandError,
    discard_output,
    print_error,
    print_table,
    progress,
    read_input,
    write_out,
    write_tables,
)
from server.formats import FORMATS, Writer
from server.teach_command import FolderOption
from server.workshop import add_commands

if TYPE_CHECKING:
    from pydantic import ValidationError

    from model.checkpoint import Checkpoint
    from model.pipeline import Tagging
    from server.formats import Report

FAILURE, BAD_USAGE = 1, 2

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help="Hark listens to audio and says what is in it."
)


class OutputFormat(StrEnum):
    """How `hark classify` writes: a table for people, or a format of `server/formats.py`."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"
    AUDACITY = "audacity"
    WEBVTT = "webvtt"
    RAVEN = "raven"


class ChannelMode(StrEnum):
    """What `hark classify` does with several channels."""

    MIXED = "mixed"
    SPLIT = "split"


class Benched(StrEnum):
    """What `hark bench` times."""

    MODELS = "models"
    RUNTIMES = "runtimes"


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; 0.0.0.0 is every interface.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 lets the system choose one.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Model to serve; repeat it for several.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 and so on.")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
) -> None:
    """Serve the web page and the HTTP interface.

    What is not given here comes from HARK_* environment variables, then from the settings file (docs/configuration.md).
    """
    gc.disable()  # what is imported stays; to look through it again and again would take a sixth of the start
    from pydantic import ValidationError

    from server.process import serve as serve_until_signal
    from server.settings import Settings
    from server.settings_rules import SettingsFileError

    gc.freeze()
    gc.unfreeze()  # all of it is old now, so that the first young collection has little to look through
    gc.enable()
    given: dict[str, Any] = {"host": host, "port": port, "models": model or None, "device": device, "config": config}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise typer.BadParameter(_what_is_wrong(error)) from error
    except SettingsFileError as error:
        raise typer.BadParameter(str(error)) from error
    _check_address(settings.host, settings.port)
    raise typer.Exit(serve_until_signal(settings))


@app.command()
def classify(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Sound files of any common format; - is standard input.")
    ],
    model: Annotated[str | None, typer.Option(help="A bundled model's name or a checkpoint folder.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Most labels per clip and window.")] = 5,
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="Leave out labels scored lower.")] = 0.0,
    window: Annotated[float | None, typer.Option(help="Window in seconds; by default the model's own.")] = None,
    hop: Annotated[float | None, typer.Option(help="Seconds between window starts.")] = None,
    rollup: Annotated[bool, typer.Option("--rollup", help="Lift scores to AudioSet parents.")] = False,
    channels: Annotated[ChannelMode, typer.Option(help="Tag channels mixed, or each by itself.")] = ChannelMode.MIXED,
    output: Annotated[OutputFormat, typer.Option("--format", help="What to write.")] = OutputFormat.TABLE,
    classes: FolderOption = None,
) -> None:
    """Tag sound files on this machine, without a server."""
    write = _writer(output, len(files))
    options = {"top_k": top_k, "threshold": threshold, "rollup": rollup, "channels": channels.value}
    tag_file = _tagger(model, window, hop, classes, options)
    failed: list[Path] = []
    with progress(len(files), "tagging") as advance:
        reports = _reports(files, tag_file, failed, advance)
        for text in write(reports):
            write_out(text)
    if failed:
        raise typer.Exit(FAILURE)


@app.command()
def models(
    published: Annotated[bool, typer.Option("--published", help="List what `hark pull` can download instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of a table.")] = False,
) -> None:
    """List this machine's models: the bundled ones, the default first, then those pulled."""
    rows = _published_rows() if published else _model_rows()
    if as_json:
        write_out(json.dumps(rows, indent=2) + "\n")
    else:
        print_table(list(rows[0]) if rows else ["model"], [[str(value) for value in row.values()] for row in rows])


@app.command()
def bench(
    what: Annotated[
        Benched, typer.Argument(help="models: the reference in torch; runtimes: all that can serve here.")
    ] = Benched.MODELS,
    model: Annotated[list[str] | None, typer.Option(help="Model to time; repeat it for several.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often each is timed; the median counts.")] = 20,
) -> None:
    """Time models on this machine: one window of sound from waveform to scores, without a server.

    `hark bench runtimes` measures every runtime with each model; `hark serve` then takes the fastest.
    """
    from model.registry import bundled_models
    from server.bench import time_model
    from server.runtime_commands import bench_runtimes

    if what is Benched.RUNTIMES:
        return bench_runtimes(model or bundled_models())

    timings = [time_model(_load(name), repeats) for name in model or bundled_models()]
    rows = [
        (timing.model, f"{timing.clip_seconds:g}", f"{timing.median_seconds * 1000:.1f}", f"{timing.speed:.0f}")
        for timing in timings
    ]
    print_table(("model", "clip_seconds", "median_ms", "times_real_time"), rows)


add_commands(app)
evaluation_commands.add_commands(app)


def main() -> NoReturn:
    """Run this process's command line."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code; errors are one sentence on stderr."""
    try:
        code = app(list(arguments) or ["--help"], prog_name="hark", standalone_mode=False) or 0
        if sys.stdout is not None:
            write_out("")  # a full disk shows when the rest is flushed
        return code
    except typer.TyperException as error:
        print_error(error.format_message())
        return BAD_USAGE
    except CommandError as error:
        print_error(str(error))
        return FAILURE
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        discard_output()
        return FAILURE
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        discard_output()
        print_error(f"the result cannot be written: {error.strerror}")  # help and tables are written by libraries
        return FAILURE


def _what_is_wrong(error: "ValidationError") -> str:
    """Each bad setting's name and what is wrong with it; a setting's value may be secret and is not repeated."""
    faults = (
        (".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")) for fault in error.errors()
    )
    return "; ".join(f"{name}: {message}" if name else message for name, message in faults)


def _check_address(host: str, port: int) -> None:
    """Fails at once and in words, where a server would only find out after loading its models."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen()
    except OSError as error:
        raise CommandError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another with --port"
        ) from error


def _writer(output: OutputFormat, files: int) -> Writer:
    """What turns this many tagged files into text."""
    if output is OutputFormat.TABLE:
        return write_tables
    chosen = FORMATS[output]
    write = chosen.write if files == 1 else chosen.write_several
    if write is None:
        raise typer.BadParameter(f"--format {output} describes one sound; give one FILE at a time")
    return write


def _tagger(
    model: str | None, window: float | None, hop: float | None, classes: Path | None, options: dict[str, Any]
) -> Callable[[Path], "Tagging"]:
    """A function that tags a file; the model is loaded and the window checked before the first."""
    from model.pipeline import tag, window_grid
    from model.registry import DEFAULT_MODEL
    from server.own_classes import read_classes

    checkpoint = _load(model or DEFAULT_MODEL)
    own_classes = read_classes(classes, checkpoint)
    try:
        window_grid(checkpoint, window, hop)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return lambda path: tag(
        read_input(path), checkpoint, window_seconds=window, hop_seconds=hop, own_classes=own_classes, **options
    )


def _load(name: str) -> "Checkpoint":
    from model.checkpoint import CheckpointError, load
    from model.registry import UnknownModelError, find_checkpoint

    try:
        return load(find_checkpoint(name))
    except UnknownModelError as error:
        raise typer.BadParameter(str(error)) from error
    except CheckpointError as error:
        raise CommandError(str(error)) from error


def _reports(
    files: list[Path], tag_file: Callable[[Path], "Tagging"], failed: list[Path], advance: Callable[[], None]
) -> Iterator["Report"]:
    """Tags file after file; one that cannot be tagged is named on stderr, kept in `failed` and passed over."""
    from model.audio import AudioError
    from server.formats import Report

    for path in files:
        try:
            tagging = tag_file(path)
        except (AudioError, OSError) as error:
            failed.append(path)
            print_error(f"{path}: {getattr(error, 'strerror', None) or error}")
        else:
            yield Report(tagging, source=str(path))
        advance()


def _model_rows() -> list[dict[str, Any]]:
    """This machine's models, from their files; no weights are loaded."""
    from model.checkpoint import CONFIG, LABELS, WEIGHTS, CheckpointConfig
    from model.labels import LabelSet
    from model.registry import bundled_models, find_checkpoint, pulled_models

    rows = []
    for name in dict.fromkeys(bundled_models() + pulled_models()):
        folder = find_checkpoint(name)
        try:
            config = CheckpointConfig.from_json((folder / CONFIG).read_text())
            labels = len(LabelSet.from_json(folder / LABELS))
            megabytes = round((folder / WEIGHTS).stat().st_size / 1e6, 1)
        except (OSError, ValueError) as error:
            raise CommandError(f"model {name} in {folder} is broken: {error}") from error
        rows.append({"model": name, "backbone": config.backbone, "window_seconds": config.window_seconds})
        rows[-1] |= {"labels": labels, "megabytes": megabytes}
    return rows


def _published_rows() -> list[dict[str, Any]]:
    from model.published import PUBLISHED

    return [
        {"model": entry.name, "backbone": entry.backbone, "licence": entry.licence, "about": entry.about}
        for entry in PUBLISHED.values()
    ]


if __name__ == "__main__":
    main()
