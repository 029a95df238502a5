"""The table of published checkpoints: complete, consistent, and the one in the documentation."""

import re
from pathlib import Path

import pytest

from model.convert.conversion import FORMATS
from model.published import PUBLISHED, ByHand, HubRepo, Published, WebFile, find_published, markdown_table
from model.registry import BACKBONES, UnknownModelError, find_checkpoint

DOCUMENT = Path(__file__).parents[2] / "docs" / "published-checkpoints.md"


@pytest.mark.parametrize("entry", PUBLISHED.values(), ids=PUBLISHED)
def test_every_entry_is_complete(entry: Published) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", entry.name)
    assert entry.backbone in BACKBONES
    assert entry.format in FORMATS
    assert entry.licence in ("BSD-3-Clause", "MIT")
    assert entry.page.startswith("https://")
    assert entry.about
    assert entry.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
    for file in (entry.source, entry.labels):
        if isinstance(file, WebFile):
            assert file.url.startswith("https://")
            assert Path(file.filename).name == file.filename
            assert file.filename.endswith((".pth", ".csv"))


def test_no_two_entries_have_the_same_source() -> None:
    sources = [entry.source for entry in PUBLISHED.values() if not isinstance(entry.source, ByHand)]
    assert len(set(sources)) == len(sources)


def test_the_eight_of_hugging_face_are_there() -> None:
    assert sum(isinstance(entry.source, HubRepo) for entry in PUBLISHED.values()) == 8


def test_a_checkpoint_is_found_by_its_name_and_by_its_id() -> None:
    assert find_published("MIT/ast-finetuned-speech-commands-v2") is find_published("ast-finetuned-speech-commands-v2")
    assert find_published("MIT/nothing") is None


def test_a_name_that_is_not_here_yet_is_told_how_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARK_CACHE", str(tmp_path))
    with pytest.raises(UnknownModelError, match="it is published: run hark pull ssast-tiny-patch-400"):
        find_checkpoint("ssast-tiny-patch-400")


def test_the_document_holds_this_table() -> None:
    """`python -m model.published` prints it."""
    assert markdown_table() in DOCUMENT.read_text()
