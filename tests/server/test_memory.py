"""The memory that the metric tells is there while threads and processes come and go."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.memory import device_memory_bytes, resident_bytes


def test_a_thread_that_ends_meanwhile_does_not_make_the_memory_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One such thread made the whole metric 0."""
    glob = Path.glob

    def with_an_ended_thread(folder: Path, pattern: str) -> Iterator[Path]:
        yield folder / "task" / "0" / "children"
        yield from glob(folder, pattern)

    monkeypatch.setattr(Path, "glob", with_an_ended_thread)
    assert device_memory_bytes() > 1e6


def test_a_process_that_is_not_there_holds_nothing() -> None:
    assert resident_bytes(0) == 0
