"""ESC-50's and Speech Commands' folders."""

from pathlib import Path

import pytest

from model.convert.label_sets import SPEECH_COMMANDS
from model.labels import LabelSet
from model.training.clips import ManifestError
from model.training.corpus import read_corpus
from model.training.data import split
from model.training.layouts import read_esc50, read_speech_commands
from tests.model.training.corpora import write_sound

ROWS = """filename,fold,target,category,esc10,src_file,take
1-100032-A-0.wav,1,0,dog,True,100032,A
2-100038-A-14.wav,2,14,chirping_birds,False,100038,A
2-100038-B-14.wav,2,14,chirping_birds,False,100038,B
"""


def _esc50(folder: Path, rows: str = ROWS) -> Path:
    (folder / "meta").mkdir(exist_ok=True)
    (folder / "meta" / "esc50.csv").write_text(rows)
    return folder


def test_esc50_has_its_folds_and_the_order_of_its_targets(tmp_path: Path) -> None:
    corpus = read_esc50(_esc50(tmp_path), None)
    assert corpus.labels.mids == ("dog", "chirping_birds")
    first = corpus.clips[0]
    assert (first.file, first.mids, first.fold) == (tmp_path / "audio" / "1-100032-A-0.wav", ("dog",), 1)
    assert corpus.clips[1].split_group == corpus.clips[2].split_group == "100038"
    assert [len(part) for part in split(corpus.clips, validation_fold=2)] == [1, 2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("x.wav,one,0,dog,True,1,A", "line 5: fold and target must be whole numbers"),
        ("x.wav,1,0,cat,True,1,A", "line 5: target 0 has a second category, cat"),
        ("x.wav,1,7,dog,True,1,A", "gives one category several targets"),
    ],
)
def test_a_wrong_row_of_esc50_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_esc50(_esc50(tmp_path, f"{ROWS}{row}\n"), None)


def _speech_commands(folder: Path) -> Path:
    for word in ("zero", "bed"):
        for speaker in ("aa", "bb", "cc"):
            write_sound(folder / word / f"{speaker}_nohash_0.wav")
    write_sound(folder / "_background_noise_" / "pink_noise.wav")
    (folder / "validation_list.txt").write_text("bed/bb_nohash_0.wav\nzero/bb_nohash_0.wav\n")
    (folder / "testing_list.txt").write_text("bed/cc_nohash_0.wav\nzero/gone_nohash_0.wav\n")
    return folder


def test_speech_commands_has_its_words_parts_and_speakers(tmp_path: Path) -> None:
    corpus = read_speech_commands(_speech_commands(tmp_path), None)
    assert corpus.labels.mids == ("bed", "zero")
    parts = {f"{clip.mids[0]} {clip.split_group}": clip.part for clip in corpus.clips}
    assert parts == {
        **{"bed aa": "training", "bed bb": "validation", "bed cc": "testing", "zero aa": "training"},
        **{"zero bb": "validation", "zero cc": "training", "zero gone": "testing"},  # listed, but not there
    }


def test_all_35_words_come_in_the_order_of_the_published_checkpoints(tmp_path: Path) -> None:
    for word in SPEECH_COMMANDS:
        (tmp_path / word).mkdir()
        (tmp_path / word / "a_nohash_0.wav").touch()
    for name in ("validation_list.txt", "testing_list.txt"):
        (tmp_path / name).touch()
    assert list(read_speech_commands(tmp_path, None).labels.mids) == SPEECH_COMMANDS


def test_a_word_outside_the_given_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="label bed is not among the 1 labels"):
        read_corpus(_speech_commands(tmp_path), labels=LabelSet.from_mids(["zero"]))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("bird/aa_nohash_0.wav", r"testing_list\.txt line 3: 'bird/aa_nohash_0\.wav' is not a file in a word's folder"),
        ("aa_nohash_0.wav", "line 3"),
        ("bed/bb_nohash_0.wav", "line 3: bed/bb_nohash_0.wav is listed twice"),
    ],
)
def test_a_wrong_line_of_a_list_is_named(tmp_path: Path, line: str, message: str) -> None:
    folder = _speech_commands(tmp_path)
    with (folder / "testing_list.txt").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(ManifestError, match=message):
        read_speech_commands(folder, None)


def test_a_folder_of_sounds_is_a_corpus_without_labels(tmp_path: Path) -> None:
    for name in ("b/2.wav", "b/1.wav", "a.wav"):
        write_sound(tmp_path / name)
    (tmp_path / "b" / "notes.txt").touch()
    corpus = read_corpus(tmp_path)
    assert [str(clip.file.relative_to(tmp_path)) for clip in corpus.clips] == ["a.wav", "b/1.wav", "b/2.wav"]
    assert not any(clip.mids for clip in corpus.clips)
    assert len(corpus.labels) == 0


def test_a_missing_list_and_a_word_without_clips_are_refused(tmp_path: Path) -> None:
    folder = _speech_commands(tmp_path)
    (folder / "cat").mkdir()
    with pytest.raises(ManifestError, match=r"cat has no \.wav file"):
        read_speech_commands(folder, None)
    (folder / "testing_list.txt").unlink()
    with pytest.raises(ManifestError, match=r"testing_list\.txt is missing"):
        read_speech_commands(folder, None)
