"""JSON datafiles as AST and AuM write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.labels import LabelSet, audioset_labels
from model.training.clips import ManifestError
from model.training.datafiles import read_datafile


def _datafile(folder: Path, *entries: Any) -> Path:
    path = folder / "train.json"
    path.write_text(json.dumps({"data": entries}))
    return path


def test_entries_become_clips_in_order_with_absolute_and_relative_paths(tmp_path: Path) -> None:
    corpus = read_datafile(
        _datafile(
            tmp_path,
            {"wav": "/data/audio/Yabc.flac", "labels": "/m/09x0r,/m/0bt9lr", "video_id": "abc"},
            {"wav": "audio/b.wav", "labels": "Dog"},
            {"wav": "c.wav", "labels": ""},
        ),
        None,
    )
    assert [clip.file for clip in corpus.clips] == [
        Path("/data/audio/Yabc.flac"),
        tmp_path / "audio" / "b.wav",
        tmp_path / "c.wav",
    ]
    assert [clip.mids for clip in corpus.clips] == [("/m/09x0r", "/m/0bt9lr"), ("/m/0bt9lr",), ()]
    assert corpus.labels == audioset_labels()


def test_the_csv_beside_it_gives_the_classes(tmp_path: Path) -> None:
    path = _datafile(tmp_path, {"wav": "a.wav", "labels": "/m/spcmd01"}, {"wav": "b.wav", "labels": "backward"})
    with pytest.raises(
        ManifestError, match=r"entry 1: label '/m/spcmd01' is not among .*; name the CSV of its classes"
    ):
        read_datafile(path, None)
    (tmp_path / "class_labels_indices.csv").write_text(
        "index,mid,display_name\n1,/m/spcmd01,follow\n0,/m/spcmd00,backward\n"
    )
    corpus = read_datafile(path, None)
    assert corpus.labels.names == ("backward", "follow")
    assert [clip.mids for clip in corpus.clips] == [("/m/spcmd01",), ("/m/spcmd00",)]


def test_a_display_name_with_a_comma_is_one_label(tmp_path: Path) -> None:
    corpus = read_datafile(
        _datafile(tmp_path, {"wav": "a.wav", "labels": "Male speech, man speaking"}), audioset_labels()
    )
    assert corpus.clips[0].mids == ("/m/05zppz",)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"wav": "b.wav"}, "entry 2 must have the texts"),
        ({"wav": "", "labels": "/m/09x0r"}, "entry 2 must have the texts"),
        ({"wav": "b.wav", "labels": ["/m/09x0r"]}, "entry 2 must have the texts"),
        ("b.wav", "entry 2 must have the texts"),
        ({"wav": "b.wav", "labels": "/m/09x0r,/m/nothing"}, "entry 2: label '/m/nothing' is not among the 2 labels"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, entry: Any, message: str) -> None:
    path = _datafile(tmp_path, {"wav": "a.wav", "labels": "/m/09x0r"}, entry)
    with pytest.raises(ManifestError, match=message):
        read_datafile(path, LabelSet.from_mids(["/m/09x0r", "/m/0bt9lr"]))


@pytest.mark.parametrize("text", ["{", "[]", '{"data": {}}', '{"clips": []}', "\x00"])
def test_another_json_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ManifestError, match=r"x\.json is not a"):
        read_datafile(tmp_path / "x.json", None)


def test_a_name_with_a_comma_needs_no_labels_of_its_own(tmp_path: Path) -> None:
    """It was split and refused as no label of AudioSet's, though the same name passed where labels were given."""
    path = _datafile(tmp_path, {"wav": "a.wav", "labels": "Crowing, cock-a-doodle-doo"})
    assert read_datafile(path, None).clips[0].mids == ("/m/07qn5dc",)


def test_a_byte_order_mark_is_no_part_of_a_datafile(tmp_path: Path) -> None:
    """CSV manifests with one were read, datafiles were called no JSON."""
    path = _datafile(tmp_path, {"wav": "a.wav", "labels": ""})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_datafile(path, None).clips) == 1
