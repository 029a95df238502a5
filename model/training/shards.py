"""WebDataset tar shards: a corpus in a few large files, for one that outgrows a disk or is read over a network.

    folder/  plan.json      what is being packed; with it an interrupted `hark pack` goes on
             000000.tar     00000000.flac 00000000.json 00000001.flac 00000001.json ...     sounds as they were, labels
             000000.json    where each clip of that tar lies, its size and checksum; there once the tar is complete
             shards.json    the labels and the list of shards; there once everything is packed

Any reader of WebDataset tars can read them; ours finds each clip by its offset, so that sampling, splits and resuming
are those of loose files. `shard_stream.py` reads them in sequence.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from model.labels import LabelSet
from model.training.clips import Clip, ManifestError, ShardSlice
from model.training.labelled import Corpus

INDEX = "shards.json"
PLAN = "plan.json"
VERSION = 1
REMEDY = "bring it from where it was packed, or run the same `hark pack` again"


def read_shards(folder: Path, labels: LabelSet | None) -> Corpus:
    """Read a folder of shards, or its shards.json; the labels are those it was packed with unless others are given.

    Raises: ManifestError if a shard is missing, cut off or does not fit its index; OSError if one cannot be read.
    """
    folder = folder.parent if folder.name == INDEX else folder
    index = read_json(folder / INDEX)
    if not isinstance(index, dict) or index.get("version") != VERSION:
        raise ManifestError(f"{folder / INDEX} is not the index of shards that this version of Hark reads")
    try:
        clips = [clip for shard in index["shards"] for clip in _read_shard(folder, shard)]
        own = LabelSet.from_rows(index["labels"])
    except ManifestError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{folder / INDEX} is damaged: {error!r}") from error
    return Corpus(clips, labels or own)


def _read_shard(folder: Path, shard: dict[str, Any]) -> list[Clip]:
    """The clips of one shard, after a look at whether the tar is there and whole."""
    tar = folder / shard["file"]
    found = tar.stat().st_size if tar.exists() else None
    if found != shard["size_bytes"]:
        state = "is missing" if found is None else f"has {found} bytes instead of {shard['size_bytes']}"
        raise ManifestError(f"{tar} {state}; {REMEDY}")
    index = tar.with_suffix(".json")
    if not index.exists() or sha256_of(index) != shard["index_sha256"]:
        raise ManifestError(f"{index} is not the one that was packed with it; {REMEDY}")
    return [_read_clip(tar, found, row) for row in read_json(index)["clips"]]


def _read_clip(tar: Path, tar_bytes: int, row: dict[str, Any]) -> Clip:
    start, size = row["offset_bytes"], row["size_bytes"]
    if start < 0 or size < 0 or start + size > tar_bytes:
        raise ValueError(f"{row['file']} lies outside {tar.name}")
    stored = ShardSlice(tar, row["key"], start, size)
    mids = tuple(row["mids"])
    return Clip(Path(row["file"]), mids, row["split_group"], row["fold"], row["category"], row["part"], stored)


def clip_row(clip: Clip, root: Path) -> dict[str, Any]:
    """What a shard says about a clip, in its index and beside the sound in the tar; its file is relative to `root`."""
    return {
        "file": str(clip.file.absolute().relative_to(root)),
        "mids": list(clip.mids),
        "split_group": clip.split_group,
        "fold": clip.fold,
        "category": clip.category,
        "part": clip.part,
    }


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises: ManifestError if it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ManifestError(f"{path} is missing") from error
    except ValueError as error:
        raise ManifestError(f"{path} is damaged: {error}") from error


def sha256_of(path: Path) -> str:
    """Checksum of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shards_of(clips: list[Clip]) -> Iterator[Path]:
    """Each shard that holds any of the clips, once, in order.

    Raises: ManifestError for a clip that is not in a shard.
    """
    seen: set[Path] = set()
    for clip in clips:
        if clip.stored is None:
            raise ManifestError(f"{clip.file} is not in a shard; `hark pack` makes shards of a corpus")
        if clip.stored.shard not in seen:
            seen.add(clip.stored.shard)
            yield clip.stored.shard
