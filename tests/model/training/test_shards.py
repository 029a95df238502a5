"""A damaged or incomplete folder of shards is refused before anything is trained on it."""

import json
from pathlib import Path

import pytest

from model.labels import LabelSet
from model.training.bad_files import BadFiles
from model.training.clips import ManifestError
from model.training.corpus import read_corpus
from model.training.labelled import Corpus
from model.training.pack import Packer, PackOptions
from model.training.shards import sha256_of, shards_of
from tests.model.training.corpora import write_clips

LABELS = LabelSet.from_mids(["a", "b"])


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    corpus = Corpus(write_clips(tmp_path / "clips", [("a",), ("b",)] * 8), LABELS)
    Packer(corpus, tmp_path / "shards", PackOptions(shard_bytes=30_000), BadFiles()).pack()
    return tmp_path / "shards"


def test_a_folder_and_its_index_are_the_same_corpus(shards: Path) -> None:
    assert read_corpus(shards) == read_corpus(shards / "shards.json")
    assert len(read_corpus(shards).clips) == 16


def test_other_labels_may_be_given_if_they_cover_the_clips(shards: Path) -> None:
    wider = LabelSet.from_mids(["b", "c", "a"])
    assert read_corpus(shards, labels=wider).labels == wider
    with pytest.raises(ManifestError, match="not among the 1 labels"):
        read_corpus(shards, labels=LabelSet.from_mids(["a"]))


def test_a_missing_and_a_cut_tar_are_refused(shards: Path) -> None:
    tar = shards / "000001.tar"
    content = tar.read_bytes()
    tar.write_bytes(content[:-512])
    with pytest.raises(ManifestError, match=rf"000001\.tar has {len(content) - 512} bytes instead of {len(content)}"):
        read_corpus(shards)
    tar.unlink()
    with pytest.raises(ManifestError, match=r"000001\.tar is missing"):
        read_corpus(shards)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("shards.json", "{", r"shards\.json is damaged"),
        ("shards.json", "[]", "not the index of shards"),
        ("shards.json", '{"version": 99}', "not the index of shards"),
        ("shards.json", '{"version": 1, "shards": []}', r"shards\.json is damaged: KeyError"),
        ("shards.json", None, r"not finished"),
        ("000000.json", '{"clips": []}', r"000000\.json is not the one that was packed with it"),
        ("000000.json", None, r"000000\.json is not the one that was packed with it"),
    ],
)
def test_a_damaged_index_is_named(shards: Path, name: str, text: str | None, message: str) -> None:
    (shards / name).unlink() if text is None else (shards / name).write_text(text)
    with pytest.raises(ManifestError, match=message):
        read_corpus(shards)


@pytest.mark.parametrize(
    "bent", [{"offset_bytes": -1}, {"offset_bytes": "x"}, {"size_bytes": -1}, {"size_bytes": 10**12}]
)
def test_a_clip_outside_its_tar_is_a_damaged_index(shards: Path, bent: dict[str, object]) -> None:
    """Such an index with right checksums passed; training then ended in a MemoryError or a TypeError."""
    path, top = shards / "000000.json", json.loads((shards / "shards.json").read_text())
    index = json.loads(path.read_text())
    index["clips"][0] |= bent
    path.write_text(json.dumps(index))
    top["shards"][0]["index_sha256"] = sha256_of(path)
    (shards / "shards.json").write_text(json.dumps(top))
    with pytest.raises(ManifestError, match=r"shards\.json is damaged"):
        read_corpus(shards)


def test_loose_files_are_in_no_shard(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is not in a shard"):
        list(shards_of(write_clips(tmp_path, [("a",)])))
