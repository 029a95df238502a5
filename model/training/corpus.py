"""A corpus in whatever form it comes: clips and the labels they are tagged with, in the published order.

CSV manifest        file,mids,split_group[,fold,part]                                         data.py
JSON datafile       {"data": [{"wav": path, "labels": "mid,mid"}]}, AST's and AuM's           datafiles.py
AudioSet segments   YTID, start_seconds, end_seconds, "mid,mid", over a folder of clips       segments.py
ESC-50              meta/esc50.csv and audio/                                                 layouts.py
Speech Commands     a folder per word, validation_list.txt and testing_list.txt               layouts.py
sounds              a folder of sound files and nothing else, without labels                  layouts.py
shards              shards.json and *.tar, written by `hark pack`                             shards.py
"""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from model.convert.errors import LabelsError
from model.convert.label_sets import read_labels
from model.labels import LabelSet
from model.training.clips import ManifestError
from model.training.data import read_manifest, used_labels
from model.training.datafiles import read_datafile
from model.training.labelled import Corpus, check_labels
from model.training.layouts import ESC50_META, LISTS, read_esc50, read_sounds, read_speech_commands
from model.training.segments import read_segments
from model.training.shards import INDEX, PLAN, read_shards
from model.training.sound_files import sounds_below

CorpusFormat = Literal["auto", "csv", "json", "audioset", "esc50", "speech_commands", "sounds", "shards"]
MANIFEST = "manifest.csv"


def read_corpus(
    path: str | Path,
    format: CorpusFormat = "auto",
    clips_folder: Path | None = None,
    class_labels: Path | None = None,
    labels: LabelSet | None = None,
) -> Corpus:
    """Read a corpus; its format is recognised from what `path` holds unless it is given.

    `clips_folder` is where the clips of AudioSet's segments are. `labels`, or a CSV file of `class_labels`, fixes the
    classes and their order; without them they are the format's own. A clip's file is not opened here.

    Raises: ManifestError if it is no such corpus, is empty, has a wrong row, or a label outside the given ones;
    OSError if it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise ManifestError(f"{path} does not exist")
    if class_labels is not None and labels is None:
        labels = _read_class_labels(class_labels)
    chosen = recognise(path) if format == "auto" else format
    if chosen not in READERS:
        raise ManifestError(f"{format} is not a format of a corpus; choose from {', '.join(get_args(CorpusFormat))}")
    if clips_folder is not None and chosen != "audioset":
        raise ManifestError(f"{path} is read as {chosen}, which names its own files; a folder of clips is for audioset")
    corpus = READERS[chosen](path, clips_folder, labels)
    if not corpus.clips:
        raise ManifestError(f"{path} lists no clips")
    check_labels(corpus)
    return corpus


def recognise(path: Path) -> CorpusFormat:
    """Which format a file or folder has.

    Raises: ManifestError if it has none.
    """
    if path.is_dir():
        for name, found in FOLDERS.items():
            if (path / name).exists():
                return found
        if (path / PLAN).exists():
            raise ManifestError(f"{path} holds shards that were not finished; run the same `hark pack` again")
        if next(sounds_below(path), None):
            return "sounds"
        raise ManifestError(f"{path} is no corpus: it has none of {', '.join(FOLDERS)}, and no sounds")
    if path.suffix.lower() == ".json":
        return "shards" if path.name == INDEX else "json"
    return _recognise_table(path)


def _recognise_table(path: Path) -> CorpusFormat:
    """A manifest has a header with `file`; AudioSet's segments have comments or four cells."""
    with path.open("rb") as lines:
        first = lines.readline(4096).decode("utf-8-sig", errors="replace").strip()
    columns = [cell.strip(' "') for cell in first.split(",")]
    if "file" in columns:
        return "csv"
    if first.startswith("#") or (len(first.split(",", 3)) == 4 and '"' in first):
        return "audioset"
    raise ManifestError(
        f"{path} is neither a manifest (a header with file, mids and split_group) nor AudioSet's segments "
        f"(YTID, start, end, labels); its first line is {first[:80]!r}"
    )


def _read_class_labels(path: Path) -> LabelSet:
    try:
        return read_labels(path)
    except LabelsError as error:
        raise ManifestError(str(error)) from error


def _read_manifest(path: Path, _: Path | None, labels: LabelSet | None) -> Corpus:
    clips = read_manifest(path / MANIFEST if path.is_dir() else path)
    return Corpus(clips, labels or used_labels(clips))


FOLDERS: dict[str, CorpusFormat] = {
    INDEX: "shards",
    ESC50_META: "esc50",
    **dict.fromkeys(LISTS, "speech_commands"),
    MANIFEST: "csv",
}
"""The file that gives a folder's format away."""

READERS: dict[str, Callable[[Path, Path | None, LabelSet | None], Corpus]] = {
    "csv": _read_manifest,
    "json": lambda path, _, labels: read_datafile(path, labels),
    "audioset": read_segments,
    "esc50": lambda path, _, labels: read_esc50(path, labels),
    "speech_commands": lambda path, _, labels: read_speech_commands(path, labels),
    "sounds": lambda path, _, labels: read_sounds(path, labels),
    "shards": lambda path, _, labels: read_shards(path, labels),
}
