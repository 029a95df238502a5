"""The tally of unreadable files: nothing is silent, nothing counts twice, thousands are not all named."""

from pathlib import Path
from typing import Any

import pytest

from model.training.bad_files import NAMED, BadFiles
from model.training.clips import ManifestError


def test_a_file_counts_once_however_often_it_turns_up() -> None:
    lines: list[str] = []
    bad = BadFiles("skip", lines.append)
    for _ in range(3):
        bad.add(Path("a.wav"), "no such file")
    bad.summarise(10)
    assert lines == ["left out a.wav: no such file", "1 of 10 clips could not be read"]


def test_of_many_bad_files_the_first_are_named_and_all_are_counted() -> None:
    lines: list[str] = []
    bad = BadFiles("skip", lines.append)
    for number in range(500):
        bad.add(Path(f"{number}.wav"), "no such file")
    bad.summarise(2000)
    assert len(lines) == NAMED + 2
    assert "only counted from here on" in lines[NAMED]
    assert lines[-1] == "500 of 2000 clips could not be read"


def test_nothing_is_said_where_nothing_was_bad() -> None:
    lines: list[str] = []
    BadFiles("skip", lines.append).summarise(10)
    assert lines == []


def test_stop_makes_the_first_one_fatal() -> None:
    with pytest.raises(ManifestError, match=r"a\.wav cannot be read: no such file"):
        BadFiles("stop").add(Path("a.wav"), "no such file")


def test_another_action_is_refused() -> None:
    action: Any = "ignore"
    with pytest.raises(ValueError, match="skip or stop"):
        BadFiles(action)
