"""AudioSet's segment lists over a folder of clips."""

from pathlib import Path

import pytest

from model.labels import LabelSet
from model.training.clips import ManifestError
from model.training.segments import read_segments

LISTED = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=3, num_segs=3, num_unique_labels=2, num_positive_labels=4
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/m/0bt9lr"
a_b-c, 0.000, 8.000, "/m/09x0r"
gone0, 5.500, 15.500, "/m/0bt9lr"
"""


def _list(folder: Path, text: str = LISTED) -> Path:
    path = folder / "eval_segments.csv"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "--PJHxphWEs_30.000.wav",
        "--PJHxphWEs_30.000_40.000.flac",
        "--PJHxphWEs_30000.m4a",
        "--PJHxphWEs_30000_40000.wav",
        "--PJHxphWEs_30_40.mp3",
        "Y--PJHxphWEs_30.opus",
        "Y--PJHxphWEs.wav",
        "--PJHxphWEs.WAV",
        "a/deeper/folder/--PJHxphWEs_30.wav",
    ],
)
def test_a_clip_is_found_by_the_names_people_give_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "clips" / name).parent.mkdir(parents=True)
    (tmp_path / "clips" / name).touch()
    clip = read_segments(_list(tmp_path), tmp_path / "clips", None).clips[0]
    assert clip.file == tmp_path / "clips" / name
    assert clip.mids == ("/m/09x0r", "/m/0bt9lr")
    assert clip.split_group == "--PJHxphWEs"


def test_segments_without_a_clip_stay_so_that_they_are_counted(tmp_path: Path) -> None:
    (tmp_path / "eval_segments").mkdir()
    (tmp_path / "eval_segments" / "a_b-c_0.ogg").touch()
    corpus = read_segments(_list(tmp_path), None, None)
    assert [clip.file.exists() for clip in corpus.clips] == [False, True, False]
    assert corpus.clips[2].file.name == "gone0_5.500"
    assert len(corpus.labels) == 527


def test_a_folder_with_none_of_them_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="eval_segments is not a folder; say where"):
        read_segments(_list(tmp_path), None, None)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.wav").touch()
    with pytest.raises(ManifestError, match=r"other has none of the 3 clips, such as --PJHxphWEs_30\.000\.wav"):
        read_segments(_list(tmp_path), tmp_path / "other", None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("gone0, 5.5, 15.5, /m/0bt9lr,/m/09x0r", "line 7 has 5 cells"),
        ("gone0, 5.5", "line 7 has 2 cells"),
        ('gone0, five, 15.5, "/m/0bt9lr"', "line 7: start and end must be seconds"),
        ('gone0, 5, 15.5, "/m/nothing"', "line 7: label '/m/nothing' is not among the 527 labels"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "a_b-c.wav").touch()
    with pytest.raises(ManifestError, match=message):
        read_segments(_list(tmp_path, f"{LISTED}{row}\n"), tmp_path, None)


def test_only_comments_are_no_clips(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="lists no clips"):
        read_segments(_list(tmp_path, LISTED.splitlines()[0] + "\n"), tmp_path, LabelSet.from_mids(["/m/09x0r"]))
