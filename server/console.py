"""What the `hark` command shows people: tables, progress, and errors of one sentence.

Results go to stdout, everything else to stderr. Off a terminal tables are plain text and progress is silent.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from server.formats import Report

LINE_SECONDS = 60.0


STDIN_MEMORY_BYTES = 2**24


class CommandError(Exception):
    """A command failed for a reason that the message gives in one sentence."""


@contextmanager
def as_command_errors() -> Iterator[None]:
    """The rooms' own errors, which are one sentence each, become the command's."""
    try:
        yield
    except (ValueError, LookupError, ImportError) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{error.filename or 'a file'}: {error.strerror or error}") from error


def print_error(message: str) -> None:
    """One line on stderr, whatever line breaks the message holds."""
    print(f"hark: {' '.join(message.split())}", file=sys.stderr)


def print_note(message: str) -> None:
    """One line of news on stderr, out of the way of results."""
    print(message, file=sys.stderr, flush=True)


def read_input(path: Path) -> Path | BinaryIO:
    """The file to read: `-` stands for standard input, kept in a temporary file, as decoders must seek.

    Raises: CommandError where there is no standard input.
    """
    if str(path) != "-":
        return path
    if sys.stdin is None:
        raise CommandError("there is no standard input to read '-' from")
    file = SpooledTemporaryFile(max_size=STDIN_MEMORY_BYTES)  # noqa: SIM115 (goes with its last reader)
    shutil.copyfileobj(sys.stdin.buffer, file)
    return cast(BinaryIO, file)


def write_out(text: str) -> None:
    """Text on stdout, at once.

    Raises: CommandError where stdout is closed or full; BrokenPipeError where its reader has left.
    """
    if sys.stdout is None:
        raise CommandError("the result cannot be written: stdout is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_output()
        raise CommandError(f"the result cannot be written: {error.strerror}") from error


def discard_output() -> None:
    """Sends to nowhere what stdout still holds, or Python would complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout."""
    write_out(render_table(columns, rows))


def render_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells as plain text under headings, as wide as the terminal allows; off a terminal nothing is wrapped."""
    table = Table(*(Column(column, overflow="fold") for column in columns), box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = 10_000
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def write_tables(reports: Iterable[Report]) -> Iterator[str]:
    """Each tagged sound for people: its top labels, then its events in order of their start."""
    for report in reports:
        tagged = report.tagged
        yield f"{report.source}  ({tagged.duration_seconds:.1f} s, {tagged.model})\n"
        yield render_table(("score", "label", "mid"), [(f"{i.score:.3f}", i.label, i.mid) for i in tagged.labels])
        for tags in tagged.channels:
            named = [(f"{i.score:.3f}", i.label, i.mid) for i in tags.labels]
            yield render_table(("score", f"label in channel {tags.channel}", "mid"), named)
        events = sorted(tagged.events, key=lambda event: event.start_seconds)
        if events:
            columns = ("from", "to", "score", "event", *(("channel",) if tagged.channels else ()))
            rows = [
                (clock(e.start_seconds), clock(e.end_seconds), f"{e.score:.3f}", e.label, str(e.channel))
                for e in events
            ]
            yield render_table(columns, [row[: len(columns)] for row in rows])


def clock(seconds: float) -> str:
    """Seconds as people read them: 75.25 is 1:15.2."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    clock = f"{minutes % 60}:{tenths // 10:02}.{tenths % 10}"
    return clock if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{tenths // 10:02}.{tenths % 10}"


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Shows a bar where results do not show progress themselves; gives the function that advances it."""
    console = Console(stderr=True)
    if total < 2 or not console.is_terminal or sys.stdout.isatty():
        yield lambda: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


@contextmanager
def long_progress(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Shows a bar on a terminal, else a line a minute; gives the function that advances it."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        done, said = 0, time.monotonic()

        def advance() -> None:
            nonlocal done, said
            done += 1
            bar.advance(task)
            if not console.is_terminal and time.monotonic() - said >= LINE_SECONDS:
                said = time.monotonic()
                print_note(f"{what}: {done} of {total}")

        yield advance


@contextmanager
def download_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Shows a bar per step on a terminal, else a line; gives the function that is told of a step and its bytes."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int | None) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step)
                if not console.is_terminal:
                    print_note(step)
            bar.update(tasks[step], completed=done, total=total)

        yield show
