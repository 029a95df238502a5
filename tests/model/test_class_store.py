"""Taught classes on disk: written whole, read strictly, versions kept, damage passed over."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from model.class_store import KEPT_VERSIONS, ClassStore, read_class
from model.own_classes import OwnClass
from model.teaching import LinearHead, Quality

QUALITY = Quality(0.9, 0.6, 0.8, 1.0, 5, 54, "your class 'x'")
OWN = OwnClass(
    "Türklingel", 0, "2026-01-01T00:00:00+00:00", "ab" * 32, LinearHead(np.arange(3, dtype=np.float32), 0.25),
    QUALITY, np.ones((5, 3), np.float32),
)  # fmt: skip


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = ClassStore(tmp_path / "new" / "folder")
    assert store.read_all() == []
    written = store.write(OWN)
    [read] = store.read_all()
    assert (read.name, read.version, read.created, read.weights_sha256) == (
        "Türklingel",
        1,
        OWN.created,
        OWN.weights_sha256,
    )
    assert read.quality == QUALITY
    assert np.array_equal(read.head.weight, OWN.head.weight)
    assert read.head.bias == OWN.head.bias
    assert np.array_equal(read.examples, OWN.examples)
    assert written.version == 1


def test_the_newest_versions_are_kept_and_the_newest_counts(tmp_path: Path) -> None:
    store = ClassStore(tmp_path)
    versions = [store.write(OWN).version for _ in range(KEPT_VERSIONS + 2)]
    assert versions == list(range(1, KEPT_VERSIONS + 3))
    assert len(list(tmp_path.rglob("*.safetensors"))) == KEPT_VERSIONS
    assert store.read_all()[0].version == KEPT_VERSIONS + 2


def test_another_spelling_of_the_name_is_the_same_class(tmp_path: Path) -> None:
    store = ClassStore(tmp_path)
    store.write(OWN)
    assert store.write(replace(OWN, name="TÜRKLINGEL")).version == 2
    assert store.write(replace(OWN, weights_sha256="cd" * 32)).version == 1
    assert len(store.read_all()) == 2


def test_removing_takes_every_version(tmp_path: Path) -> None:
    store = ClassStore(tmp_path)
    store.write(OWN)
    store.write(OWN)
    store.remove(OWN)
    assert store.read_all() == []
    assert not list(tmp_path.rglob("*.safetensors"))
    with pytest.raises(FileNotFoundError):
        store.remove(OWN)


def damaged(path: Path, kind: str) -> None:
    """Spoils a version's file in one of the ways that files go wrong."""
    tensors, content = load_file(path), path.read_bytes()
    metadata = {
        "format": 1,
        "name": "a",
        "version": 1,
        "created": "",
        "weights_sha256": "",
        "quality": QUALITY.__dict__,
    }
    if kind == "cut short":
        path.write_bytes(content[:-5])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "no metadata":
        save_file(tensors, path)
    elif kind == "another format":
        save_file(tensors, path, metadata={"own_class": json.dumps({**metadata, "format": 2})})
    elif kind == "no JSON":
        save_file(tensors, path, metadata={"own_class": "{"})
    elif kind == "unknown field":
        save_file(tensors, path, metadata={"own_class": json.dumps({**metadata, "colour": 1})})
    elif kind == "a number for a name":
        save_file(tensors, path, metadata={"own_class": json.dumps({**metadata, "name": 5})})
    elif kind == "a word for a threshold":
        quality = {**QUALITY.__dict__, "threshold": "high"}
        save_file(tensors, path, metadata={"own_class": json.dumps({**metadata, "quality": quality})})
    elif kind == "another width":
        save_file(
            {**tensors, "examples": np.ones((2, 4), np.float32)}, path, metadata={"own_class": json.dumps(metadata)}
        )
    elif kind == "not finite":
        save_file(
            {**tensors, "bias": np.array([np.nan], np.float32)}, path, metadata={"own_class": json.dumps(metadata)}
        )


@pytest.mark.parametrize(
    "kind",
    [
        *("cut short", "empty", "no metadata", "another format", "no JSON", "unknown field", "another width"),
        *("not finite", "a number for a name", "a word for a threshold"),
    ],
)
def test_a_damaged_file_is_passed_over_and_named(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A name that is a number was read, and then kept the server from starting."""
    store = ClassStore(tmp_path)
    store.write(OWN)
    store.write(OWN)
    newest = max(tmp_path.rglob("*.safetensors"))
    damaged(newest, kind)
    with pytest.raises(ValueError, match=r"\w"):
        read_class(newest)
    assert [own.version for own in store.read_all()] == [1]
    assert [str(newest) in record.getMessage() for record in caplog.records] == [True]
    assert store.write(OWN).version == 3


def test_a_folder_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        ClassStore(tmp_path / "file").write(OWN)
    assert ClassStore(tmp_path / "file").read_all() == []
