"""A file is written whole or not at all."""

import errno
import os
from pathlib import Path

import pytest

from model.whole_files import write_whole


def test_what_is_written_replaces_what_stood_there(tmp_path: Path) -> None:
    path = tmp_path / "numbers.json"
    for content in (b"old", b"new"):
        write_whole(path, content)
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_keeps_the_old_file_leaves_no_part_and_is_told_with_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports and thresholds left a hidden half file behind, and the error named no file."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "numbers.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*numbers\.json"):
        write_whole(path, b"new")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"old"
