"""Manifests, splits and targets."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from model.labels import LabelSet
from model.training.data import Clip, ManifestError, load_waveforms, read_manifest, split, targets

HEADER = "file,labels,mids,source,split_group,fold,esc50_class\n"


def _manifest(folder: Path, rows: str) -> Path:
    path = folder / "manifest.csv"
    path.write_text(HEADER + rows)
    return path


def _clip(group: str = "a", fold: int | None = None, mids: tuple[str, ...] = ("/m/09x0r",)) -> Clip:
    return Clip(Path("x.wav"), mids, group, fold, "")


def test_rows_become_clips(tmp_path: Path) -> None:
    path = _manifest(tmp_path, 'a.ogg,"Bark|Dog",/m/05tny_|/m/0bt9lr,esc50,g1,4,dog\nb.ogg,Speech,/m/09x0r,sc,g2,,\n')
    first, second = read_manifest(path)
    assert first == Clip(tmp_path / "a.ogg", ("/m/05tny_", "/m/0bt9lr"), "g1", 4, "dog")
    assert second.fold is None


def test_an_empty_manifest_and_a_missing_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no clips"):
        read_manifest(_manifest(tmp_path, ""))
    (tmp_path / "bad.csv").write_text("file,labels\na.ogg,Dog\n")
    with pytest.raises(ManifestError, match="mids, split_group"):
        read_manifest(tmp_path / "bad.csv")


def test_folds_and_groups_never_cross_the_split() -> None:
    clips = [_clip(str(i // 3)) for i in range(600)] + [_clip(fold=fold) for fold in (1, 2, 3, 4)]
    training, validation = split(clips, validation_fold=4)
    assert not {c.split_group for c in training if c.fold is None} & {
        c.split_group for c in validation if c.fold is None
    }
    assert [clip.fold for clip in validation if clip.fold] == [4]
    assert 20 < len(validation) < 120


def test_targets_are_multi_hot_and_unknown_labels_are_refused() -> None:
    labels = LabelSet.from_mids(["/m/0bt9lr", "/m/09x0r"])
    assert targets([_clip(mids=("/m/09x0r",)), _clip(mids=())], labels).tolist() == [[0, 1], [0, 0]]
    with pytest.raises(ManifestError, match="/m/06mb1"):
        targets([_clip(mids=("/m/06mb1",))], labels)


def test_unreadable_clips_are_left_out_and_reported(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "good.wav", np.zeros(1600), 16000)
    (tmp_path / "bad.wav").write_bytes(b"not audio at all")
    clips = [Clip(tmp_path / name, (), name, None, "") for name in ("good.wav", "bad.wav", "missing.wav")]
    lines: list[str] = []
    kept, waveforms = load_waveforms(clips, 16000, lines.append)
    assert [clip.file.name for clip in kept] == ["good.wav"]
    assert waveforms[0].shape == (1600,)
    assert "bad.wav" in lines[0]
    assert lines[-1] == "2 of 3 clips could not be read"
