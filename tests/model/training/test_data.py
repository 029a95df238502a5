"""Manifests, splits and targets."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.labels import LabelSet
from model.training.bad_files import BadFiles
from model.training.data import (
    Clip,
    ManifestError,
    clips_of,
    load_waveforms,
    read_manifest,
    require_labels,
    split,
    targets,
    used_labels,
)

HEADER = "file,labels,mids,source,split_group,fold,esc50_class\n"


def _manifest(folder: Path, rows: str, header: str = HEADER) -> Path:
    path = folder / "manifest.csv"
    path.write_text(header + rows)
    return path


def _clip(group: str = "a", fold: int | None = None, mids: tuple[str, ...] = ("/m/09x0r",), part: str = "") -> Clip:
    return Clip(Path("x.wav"), mids, group, fold, "", part)


def test_rows_become_clips(tmp_path: Path) -> None:
    path = _manifest(tmp_path, 'a.ogg,"Bark|Dog",/m/05tny_|/m/0bt9lr,esc50,g1,4,dog\nb.ogg,Speech,/m/09x0r,sc,g2,,\n')
    first, second = read_manifest(path)
    assert first == Clip(tmp_path / "a.ogg", ("/m/05tny_", "/m/0bt9lr"), "g1", 4, "dog")
    assert second.fold is None


def test_an_empty_manifest_and_a_missing_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no clips"):
        read_manifest(_manifest(tmp_path, ""))
    with pytest.raises(ManifestError, match="no clips"):
        read_manifest(_manifest(tmp_path, "", ""))
    (tmp_path / "bad.csv").write_text("file,labels\na.ogg,Dog\n")
    with pytest.raises(ManifestError, match="mids, split_group"):
        read_manifest(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.ogg,Dog,/m/0bt9lr,x,g,four,", "line 3: fold must be a whole number, not 'four'"),
        (",Dog,/m/0bt9lr,x,g,,", "line 3 names no file"),
        ("a.ogg,Crowing, cock-a-doodle-doo,/m/07qn5dc,x,g,,", "line 3 has more or fewer cells"),
        ("a.ogg,Dog,/m/0bt9lr,x,g", "line 3 has more or fewer cells"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        read_manifest(_manifest(tmp_path, f"a.ogg,Dog,/m/0bt9lr,x,g,1,dog\n{row}\n"))


def test_a_manifest_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_bytes(b"file,mids,split_group\n\xff\xfe,,\n")
    with pytest.raises(ManifestError, match="UTF-8"):
        read_manifest(tmp_path / "manifest.csv")


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("\ufefffile,mids,split_group\na.ogg,/m/0bt9lr,g\n", encoding="utf-8")
    assert read_manifest(tmp_path / "manifest.csv")[0].file.name == "a.ogg"


def test_folds_and_groups_never_cross_the_split() -> None:
    clips = [_clip(str(i // 3)) for i in range(600)] + [_clip(fold=fold) for fold in (1, 2, 3, 4)]
    training, validation = split(clips, validation_fold=4)
    assert not {c.split_group for c in training if c.fold is None} & {
        c.split_group for c in validation if c.fold is None
    }
    assert [clip.fold for clip in validation if clip.fold] == [4]
    assert 20 < len(validation) < 120


def test_official_parts_rule_the_split_and_test_clips_are_in_neither(tmp_path: Path) -> None:
    rows = "".join(f"{i}.ogg,/m/09x0r,g{i},1,{part}\n" for i, part in enumerate(("training", "validation", "testing")))
    clips = read_manifest(_manifest(tmp_path, rows, "file,mids,split_group,fold,part\n"))
    training, validation = split(clips, validation_fold=1)
    assert [clip.part for clip in training] == ["training"]
    assert [clip.part for clip in validation] == ["validation"]
    assert [clip.file.name for clip in clips_of(clips, "testing")] == ["2.ogg"]
    with pytest.raises(ManifestError, match="line 2: part must be"):
        read_manifest(_manifest(tmp_path, "a.ogg,,g,,dev\n", "file,mids,split_group,fold,part\n"))


def test_targets_are_multi_hot_and_unknown_labels_are_refused() -> None:
    labels = LabelSet.from_mids(["/m/0bt9lr", "/m/09x0r"])
    assert targets([_clip(mids=("/m/09x0r",)), _clip(mids=())], labels).tolist() == [[0, 1], [0, 0]]
    with pytest.raises(ManifestError, match="/m/06mb1"):
        targets([_clip(mids=("/m/06mb1",))], labels)


def test_used_labels_are_ordered_by_mid() -> None:
    assert used_labels([_clip(mids=("/m/0bt9lr", "/m/06mb1")), _clip()]).mids == ("/m/06mb1", "/m/09x0r", "/m/0bt9lr")


def test_a_corpus_without_labels_can_be_told() -> None:
    require_labels([_clip(mids=()), _clip()])
    with pytest.raises(ManifestError, match="no clip has a label"):
        require_labels([_clip(mids=())])


def _sounds(folder: Path) -> list[Clip]:
    soundfile.write(folder / "good.wav", np.zeros(1600), 16000)
    (folder / "bad.wav").write_bytes(b"not audio at all")
    return [Clip(folder / name, (), name, None, "") for name in ("good.wav", "bad.wav", "missing.wav")]


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_clips_are_left_out_and_reported(tmp_path: Path, workers: int) -> None:
    lines: list[str] = []
    kept, waveforms = load_waveforms(_sounds(tmp_path), 16000, lines.append, workers=workers)
    assert [clip.file.name for clip in kept] == ["good.wav"]
    assert waveforms[0].shape == (1600,)
    assert "bad.wav" in lines[0]
    assert lines[-1] == "2 of 3 clips could not be read"


def test_a_runs_own_tally_takes_the_unreadable_and_may_stop_the_run(tmp_path: Path) -> None:
    bad = BadFiles("skip", lambda line: None)
    load_waveforms(_sounds(tmp_path), 16000, bad=bad)
    assert {file.name for file in bad.reasons} == {"bad.wav", "missing.wav"}
    with pytest.raises(ManifestError, match=r"bad\.wav cannot be read"):
        load_waveforms(_sounds(tmp_path), 16000, bad=BadFiles("stop"))


def test_a_group_that_is_no_text_falls_on_one_side(tmp_path: Path) -> None:
    """Groups of loose sounds are their paths; one that was not UTF-8 ended the split with a UnicodeEncodeError."""
    clips = [Clip(tmp_path / "a.wav", (), "caf\udce9.wav", None, "")]
    training, validation = split(clips, validation_fold=4)
    assert training + validation == clips
