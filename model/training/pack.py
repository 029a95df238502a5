"""Packs a corpus into tar shards (see `shards.py`): the same bytes every time, and an interrupted run goes on."""

import io
import json
import os
import random
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from model.training.ahead import map_ahead
from model.training.bad_files import BadFiles
from model.training.clips import Clip, ClipError, ManifestError, decode_clip, read_bytes, reason_of
from model.training.labelled import Corpus
from model.training.shards import INDEX, PLAN, VERSION, clip_row, read_json, sha256_of
from model.whole_files import write_whole

CHECK_RATE = 16000
"""Sample rate at which clips are decoded to see whether they can be."""


@dataclass(frozen=True)
class PackOptions:
    """`shard_bytes` bounds a tar's size unless a single clip is larger; `seed` shuffles the clips over the shards.

    `check` decodes every clip, so that no broken one is packed; `workers` threads read and decode.
    """

    shard_bytes: int = 1_000_000_000
    seed: int = 0
    check: bool = True
    workers: int = 2


class Packer:
    """One pack: a corpus, the folder it goes to, and the tally of the files that cannot be read."""

    def __init__(self, corpus: Corpus, folder: Path, options: PackOptions, bad: BadFiles) -> None:
        self.corpus = corpus
        self.folder = folder
        self.options = options
        self.bad = bad
        self._known: dict[str, str] = {}
        self._advance: Callable[[], None] = lambda: None
        self._root = Path(os.path.commonpath([clip.file.parent.absolute() for clip in corpus.clips]))

    def pack(self, advance: Callable[[], None] = lambda: None) -> int:
        """Write the shards and return how many clips they hold; files that cannot be read are left out and counted.

        Shards that an interrupted run finished are kept, if they still have their checksum. Clips that stand together
        in the corpus are spread over the shards. `advance` is called for every clip that is done.

        Raises: ManifestError before any writing if the folder holds something else, and if nothing can be packed or
        a bad file is to stop the run; OSError if the disk has too little room or fails.
        """
        self._advance = advance
        if not (self.folder / PLAN).exists() and self.folder.is_dir() and any(self.folder.iterdir()):
            raise ManifestError(f"{self.folder} is not empty; name a new folder")
        plan = self._plan()
        self._claim(plan)
        self._require_room(plan)
        self._known = _known_indices(self.folder / INDEX)
        return self._finish([self._shard(number, clips) for number, clips in enumerate(plan)])

    def _plan(self) -> list[list[Clip]]:
        """The clips of each shard, by the sizes of their files."""
        if any(clip.stored for clip in self.corpus.clips):
            raise ManifestError("these clips are in shards already")
        order = list(self.corpus.clips)
        random.Random(self.options.seed).shuffle(order)
        plan: list[list[Clip]] = [[]]
        filled = 0
        for clip in order:
            try:
                size = self._entry_bytes(clip)
            except (OSError, ValueError) as error:
                self.bad.add(clip.file, reason_of(error))
                self._advance()
                continue
            if plan[-1] and filled + size > self.options.shard_bytes - tarfile.RECORDSIZE:  # a tar's end takes one
                plan.append([])
                filled = 0
            plan[-1].append(clip)
            filled += size
        if not plan[0]:
            raise ManifestError(f"none of the clips exist, such as {order[0].file}")
        return plan

    def _entry_bytes(self, clip: Clip) -> int:
        """What a clip takes in a tar: the sound, its JSON, and a header before each, in whole blocks."""
        sizes = (clip.file.stat().st_size, len(_encode(clip_row(clip, self._root))))
        return sum(tarfile.BLOCKSIZE * (1 + -(-size // tarfile.BLOCKSIZE)) for size in sizes)

    def _claim(self, plan: list[list[Clip]]) -> None:
        """Make the folder this pack's, or find that it is: the same labels, clips, sizes and places."""
        rows = [[(clip_row(clip, self._root), clip.file.stat().st_size) for clip in clips] for clips in plan]
        content = _encode([VERSION, self.corpus.labels.to_rows(), rows, self.options.check])
        identity = {"digest": sha256(content).hexdigest()}
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / PLAN
        if not path.exists():
            write_whole(path, _encode(identity))
        elif read_json(path) != identity:
            raise ManifestError(
                f"{self.folder} holds a pack of other clips, labels or options, or files have changed since; "
                "name a new folder"
            )

    def _require_room(self, plan: list[list[Clip]]) -> None:
        missing = (clips for number, clips in enumerate(plan) if not self._tar(number).exists())
        wanted = sum(self._entry_bytes(clip) for clips in missing for clip in clips)
        free = shutil.disk_usage(self.folder).free
        if wanted > free:
            text = f"the shards need {wanted / 1e6:,.1f} MB, the disk has {free / 1e6:,.1f} MB left"
            raise OSError(None, text, str(self.folder))

    def _tar(self, number: int) -> Path:
        return self.folder / f"{number:06}.tar"

    def _shard(self, number: int, clips: list[Clip]) -> dict[str, Any]:
        """What the list of shards says about one, which an earlier run has finished or this one writes."""
        tar = self._tar(number)
        shard = self._finished(tar)
        if shard is None:
            shard = self._write_shard(tar, number, clips)
        else:
            for file, reason in shard["left_out"].items():
                self.bad.add(self._root / file, reason)
            for _ in clips:
                self._advance()
        row = {key: shard[key] for key in ("file", "size_bytes", "sha256")}
        return row | {"clips": len(shard["clips"]), "index_sha256": sha256_of(tar.with_suffix(".json"))}

    def _finished(self, tar: Path) -> dict[str, Any] | None:
        """The index of a shard that an earlier run completed, if both files still are what it wrote."""
        index = tar.with_suffix(".json")
        try:
            if sha256_of(index) != self._known.get(tar.name, sha256_of(index)):
                return None
            shard = read_json(index)
            return shard if shard["sha256"] == sha256_of(tar) else None
        except (OSError, ManifestError):
            return None

    def _write_shard(self, tar: Path, number: int, clips: list[Clip]) -> dict[str, Any]:
        """Write a tar and then its index, each complete or not at all."""
        rows: list[dict[str, Any]] = []
        left_out: dict[str, str] = {}
        partial = tar.with_suffix(".part")
        try:
            with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as shard:
                for clip, sound in zip(clips, map_ahead(self._read, clips, self.options.workers), strict=True):
                    row = clip_row(clip, self._root)
                    if isinstance(sound, ClipError):
                        self.bad.add_error(sound)
                        left_out[row["file"]] = str(sound)
                    else:
                        rows.append(_add_clip(shard, f"{number:06}{len(rows):06}", row, sound))
                    self._advance()
            os.replace(partial, tar)
        except OSError as error:
            error.filename = str(tar)  # a write that fails names none
            raise
        finally:
            partial.unlink(missing_ok=True)
        index = {"file": tar.name, "size_bytes": tar.stat().st_size, "sha256": sha256_of(tar)}
        index |= {"clips": rows, "left_out": left_out}
        write_whole(tar.with_suffix(".json"), _encode(index))
        return index

    def _read(self, clip: Clip) -> bytes | ClipError:
        """A clip's encoded sound, or why it cannot be had; in a thread of its own."""
        try:
            encoded = read_bytes(clip)
            if self.options.check:
                decode_clip(clip, encoded, CHECK_RATE)
            return encoded
        except ClipError as error:
            return error

    def _finish(self, shards: list[dict[str, Any]]) -> int:
        """Write the index of all shards, which makes the folder a corpus."""
        packed = sum(shard["clips"] for shard in shards)
        if not packed:
            raise ManifestError("none of the clips can be read, so there is nothing to pack")
        index = {"version": VERSION, "clips": packed, "labels": self.corpus.labels.to_rows(), "shards": shards}
        write_whole(self.folder / INDEX, _encode(index))
        return packed


def _known_indices(path: Path) -> dict[str, str]:
    """Checksum of each shard's index by the tar's name, as far as a finished pack tells."""
    try:
        return {shard["file"]: shard["index_sha256"] for shard in read_json(path)["shards"]}
    except (ManifestError, KeyError, TypeError):
        return {}


def _add_clip(shard: tarfile.TarFile, key: str, row: dict[str, Any], sound: bytes) -> dict[str, Any]:
    """Add a sound and its labels; returns its row of the index."""
    offset = _add_file(shard, f"{key}{_ending(Path(row['file']))}", sound)
    _add_file(shard, f"{key}.json", _encode(row))
    return row | {"key": key, "offset_bytes": offset, "size_bytes": len(sound)}


def _ending(file: Path) -> str:
    """How a sound's name ends in a tar: as its file's, unless that is no ending or the one that labels have there."""
    ending = file.suffix.lower()
    return ending if re.fullmatch(r"\.[a-z0-9]{1,8}", ending) and ending != ".json" else ".audio"


def _add_file(shard: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add one file that carries no time or owner, so that packing twice gives the same bytes; returns its offset."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    offset = shard.offset + tarfile.BLOCKSIZE
    shard.addfile(header, io.BytesIO(content))
    return offset


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()  # in ASCII, so that names in any encoding come back
