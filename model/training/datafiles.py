"""JSON datafiles of AST, SSAST and AuM (YuanGongND/ast:egs/audioset, BSD-3-Clause) with their class label CSV."""

import json
from pathlib import Path
from typing import Any

from model.convert.errors import LabelsError
from model.convert.label_sets import read_labels
from model.labels import LabelSet, audioset_labels
from model.training.clips import Clip, ManifestError
from model.training.labelled import Corpus, find_mids

CLASS_LABELS = "class_labels_indices.csv"


def read_datafile(path: Path, labels: LabelSet | None) -> Corpus:
    """Read {"data": [{"wav": path, "labels": "label,label"}]}; a relative path is relative to the file's folder.

    A label is a mid or a display name of `labels`; without them of the class_labels_indices.csv beside the file, else
    of AudioSet.

    Raises: ManifestError naming the entry that is wrong or has an unknown label; OSError if it cannot be read.
    """
    entries = _read_entries(path)
    chosen = labels or _own_labels(path, entries)
    clips, folder = [], path.parent
    for number, (wav, names) in enumerate(entries, start=1):
        file = folder / wav
        clips.append(Clip(file, find_mids(names, chosen, path, f"entry {number}"), file.stem, None, ""))
    return Corpus(clips, chosen)


def _read_entries(path: Path) -> list[tuple[str, str]]:
    """(wav, labels) of every entry."""
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise ManifestError(f"{path} is not a JSON file: {error}") from error
    entries = document.get("data") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ManifestError(f'{path} is not a datafile: it must be {{"data": [{{"wav": ..., "labels": ...}}, ...]}}')
    return [_read_entry(path, number, entry) for number, entry in enumerate(entries, start=1)]


def _read_entry(path: Path, number: int, entry: Any) -> tuple[str, str]:
    values = [entry.get(key) if isinstance(entry, dict) else None for key in ("wav", "labels")]
    wav, names = values
    if not isinstance(wav, str) or not wav or not isinstance(names, str):
        raise ManifestError(f'{path} entry {number} must have the texts "wav" and "labels", not {entry!r:.120}')
    return wav, names


def _own_labels(path: Path, entries: list[tuple[str, str]]) -> LabelSet:
    """The classes of the CSV beside the datafile, else AudioSet's if they cover it."""
    beside = path.parent / CLASS_LABELS
    if beside.exists():
        try:
            return read_labels(beside)
        except LabelsError as error:
            raise ManifestError(str(error)) from error
    audioset = audioset_labels()
    try:
        for number, (_, names) in enumerate(entries, start=1):
            find_mids(names, audioset, path, f"entry {number}")
    except ManifestError as error:
        remedy = f"name the CSV of its classes (--labels), or lay it beside it as {CLASS_LABELS}"
        raise ManifestError(f"{error} of AudioSet; {remedy}") from error
    return audioset
