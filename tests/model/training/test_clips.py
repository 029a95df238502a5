"""A clip reads the same from its file and from a shard, and says why it cannot be read."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.training.clips import ClipError, ShardSlice, read_bytes, read_clip
from tests.model.training.corpora import broken, write_clips


def test_a_slice_of_a_shard_is_the_file(tmp_path: Path) -> None:
    (clip,) = write_clips(tmp_path, [("a",)])
    content = clip.file.read_bytes()
    (tmp_path / "x.tar").write_bytes(b"before" + content + b"behind")
    stored = replace(clip, stored=ShardSlice(tmp_path / "x.tar", "0", 6, len(content)))
    assert read_bytes(stored) == content
    assert np.array_equal(read_clip(stored, 8000), read_clip(clip, 8000))
    assert read_clip(clip, 8000).shape == (800,)


def test_why_a_clip_cannot_be_read(tmp_path: Path) -> None:
    clip = broken(tmp_path)
    with pytest.raises(ClipError) as undecodable:
        read_clip(clip, 16000)
    assert undecodable.value.file == clip.file
    with pytest.raises(ClipError, match="No such file"):
        read_clip(replace(clip, file=tmp_path / "gone.wav"), 16000)
    with pytest.raises(ClipError, match="No such file"):
        read_clip(replace(clip, stored=ShardSlice(tmp_path / "gone.tar", "0", 0, 9)), 16000)


def test_the_reason_survives_a_process_boundary() -> None:
    """An exception is rebuilt from its arguments there; with the reason alone that failed."""
    error = pickle.loads(pickle.dumps(ClipError(Path("a.wav"), "no such file")))
    assert (error.file, str(error)) == (Path("a.wav"), "no such file")


@pytest.mark.parametrize("name", ["a\0.wav", "a\ud800.wav"])
def test_a_name_that_no_file_can_have_is_one_bad_clip(tmp_path: Path, name: str) -> None:
    """JSON datafiles can name such files; the ValueError ended whole evaluations with "embedded null byte"."""
    clip = replace(broken(tmp_path), file=tmp_path / name)
    with pytest.raises(ClipError, match=r"null byte|surrogates not allowed"):
        read_clip(clip, 16000)
