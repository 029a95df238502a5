"""`hark pack`: a corpus of loose files into tar shards."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from server.console import as_command_errors, long_progress, print_note


class BadFile(StrEnum):
    """What a file that cannot be read does."""

    SKIP = "skip"
    STOP = "stop"


class CorpusForm(StrEnum):
    """How a corpus is laid out."""

    AUTO = "auto"
    CSV = "csv"
    JSON = "json"
    AUDIOSET = "audioset"
    ESC50 = "esc50"
    SPEECH_COMMANDS = "speech_commands"
    SOUNDS = "sounds"


def pack(
    manifest: Annotated[Path, typer.Argument(help="The corpus: a manifest, a datafile, segments or a folder.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The folder of shards to write.")],
    shard_megabytes: Annotated[int, typer.Option(min=1, help="Most megabytes of one tar.")] = 1000,
    clips: Annotated[Path | None, typer.Option(help="Where the clips of AudioSet's segments are.")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV of the classes, in their order.")] = None,
    form: Annotated[CorpusForm, typer.Option("--format", help="What MANIFEST is.")] = CorpusForm.AUTO,
    on_bad_file: Annotated[BadFile, typer.Option(help="What a file that cannot be read does.")] = BadFile.SKIP,
    check: Annotated[bool, typer.Option(help="Decode every clip, so that no broken one is packed.")] = True,
    seed: Annotated[int, typer.Option(help="Shuffles the clips over the shards.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read and decode.")] = 2,
) -> None:
    """Pack a corpus into WebDataset tar shards; the same command goes on after a stop, and mends damaged shards."""
    from model.training.bad_files import BadFiles
    from model.training.corpus import read_corpus
    from model.training.pack import Packer, PackOptions

    options = PackOptions(shard_megabytes * 1_000_000, seed, check, workers)
    bad = BadFiles(on_bad_file.value, print_note)
    with as_command_errors():
        corpus = read_corpus(manifest, form.value, clips, labels)
        packer = Packer(corpus, folder, options, bad)
        with long_progress(len(corpus.clips), "packing") as advance:
            packed = packer.pack(advance)
    bad.summarise(len(corpus.clips))
    print_note(f"packed {packed} clips into {folder}")
