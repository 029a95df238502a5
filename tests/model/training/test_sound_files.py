"""Sounds are found by their endings, wherever they lie in a folder."""

import os
from pathlib import Path
from typing import NoReturn

import pytest

from model.training.sound_files import sounds_below


def test_sounds_are_found_in_folders_inside_and_other_files_are_not(tmp_path: Path) -> None:
    for name in ("a.WAV", "deep/er/b.flac", "notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(sounds_below(tmp_path)) == [("a", tmp_path / "a.WAV"), ("b", tmp_path / "deep/er/b.flac")]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was passed over without a word, and its clips were missing from the corpus."""

    def refuse(place: object) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(place))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        list(sounds_below(tmp_path))
