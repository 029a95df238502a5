"""A corpus is recognised by what is there, and everything that cannot be one is refused in words."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.labels import LabelSet, audioset_labels
from model.training.clips import ManifestError
from model.training.corpus import read_corpus, recognise
from tests.model.training.corpora import write_sound

SEGMENTS = '# Segments csv created Sun Mar  5 10:54:31 2017\n-xY_z, 30.000, 40.000, "/m/09x0r,/m/0bt9lr"\n'


def _esc50(folder: Path) -> None:
    (folder / "meta").mkdir()
    (folder / "meta" / "esc50.csv").write_text(
        "filename,fold,target,category,esc10,src_file,take\n1-1-A-0.wav,1,0,dog,True,1,A\n"
    )


def _speech_commands(folder: Path) -> None:
    write_sound(folder / "bed" / "a_nohash_0.wav")
    for name in ("validation_list.txt", "testing_list.txt"):
        (folder / name).write_text("")


@pytest.mark.parametrize(("make", "form"), [(_esc50, "esc50"), (_speech_commands, "speech_commands")])
def test_folders_are_recognised_by_their_files(tmp_path: Path, make: Any, form: str) -> None:
    make(tmp_path)
    assert recognise(tmp_path) == form
    assert read_corpus(tmp_path).clips


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("m.csv", "file,mids,split_group\na.wav,/m/09x0r,a\n", "csv"),
        ("m.csv", '"file","mids","split_group"\na.wav,/m/09x0r,a\n', "csv"),
        ("m.csv", "\ufeffsource,file,mids,split_group\nx,a.wav,/m/09x0r,a\n", "csv"),
        ("train.json", '{"data": [{"wav": "a.wav", "labels": "/m/09x0r"}]}', "json"),
        ("segments.csv", SEGMENTS, "audioset"),
        ("segments.csv", SEGMENTS.splitlines()[1] + "\n", "audioset"),
    ],
)
def test_files_are_recognised_by_their_first_line(tmp_path: Path, name: str, text: str, form: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert recognise(tmp_path / name) == form


def test_a_folder_with_a_manifest_is_read_by_it(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("file,mids,split_group\na.wav,/m/09x0r,a\n")
    assert read_corpus(tmp_path).clips[0].file == tmp_path / "a.wav"


def test_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("name,score\nx,1\n")
    with pytest.raises(ManifestError, match="first line is 'name,score'"):
        read_corpus(tmp_path / "table.csv")
    with pytest.raises(ManifestError, match=r"none of shards.json, meta/esc50.csv"):
        read_corpus(tmp_path)
    with pytest.raises(ManifestError, match="does not exist"):
        read_corpus(tmp_path / "gone.csv")
    form: Any = "mp3"
    with pytest.raises(ManifestError, match="choose from auto, csv"):
        read_corpus(tmp_path, form)


def test_a_manifests_labels_are_its_own_in_the_order_of_mids_unless_others_are_given(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("file,mids,split_group\na.wav,/m/0bt9lr|/m/09x0r,a\n")
    assert read_corpus(path).labels.mids == ("/m/09x0r", "/m/0bt9lr")
    given = LabelSet.from_mids(["/m/0bt9lr", "/m/06mb1", "/m/09x0r"])
    assert read_corpus(path, labels=given).labels == given


def test_class_labels_fix_the_order_and_other_labels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("file,mids,split_group\na.wav,/m/0bt9lr,a\nb.wav,/m/06mb1,b\nc.wav,/m/x,c\n")
    (tmp_path / "classes.csv").write_text("index,mid,display_name\n0,/m/0bt9lr,Dog\n1,/m/09x0r,Speech\n")
    with pytest.raises(ManifestError, match=r"b\.wav: label /m/06mb1 is not among the 2 labels, and 1 more"):
        read_corpus(tmp_path, class_labels=tmp_path / "classes.csv")
    (tmp_path / "classes.csv").write_text("index,mid,display_name\n0,/m/0bt9lr,Dog\n2,/m/09x0r,Speech\n")
    with pytest.raises(ManifestError, match="does not number its labels"):
        read_corpus(tmp_path, class_labels=tmp_path / "classes.csv")


def test_a_folder_of_clips_is_for_segments_only(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps({"data": [{"wav": "a.wav", "labels": "/m/09x0r"}]}))
    with pytest.raises(ManifestError, match="a folder of clips is for audioset"):
        read_corpus(tmp_path / "data.json", clips_folder=tmp_path)


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"data": []}')
    with pytest.raises(ManifestError, match="lists no clips"):
        read_corpus(tmp_path / "data.json", labels=audioset_labels())
