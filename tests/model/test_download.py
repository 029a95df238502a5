"""One file over HTTP, from a host that breaks off, has changed its mind, or answers something else."""

import errno
import hashlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from model import download as module
from model.download import (
    ATTEMPTS,
    BrokenDownloadError,
    DiskError,
    MissingFileError,
    PullError,
    RefusedError,
    RemoteFile,
    UnreachableError,
    check_space,
    download,
)
from tests.model.hub_standin import Standin, run_standin

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with run_standin() as standin:
        standin.files["weights.pth"] = CONTENT
        yield standin


def fetch(host: Standin, folder: Path, **expected) -> Path:
    """Downloads weights.pth as Dropbox gives it, and tells where it lies."""
    path = folder / "weights.pth"
    download(RemoteFile(f"{host.url}/share/weights.pth?dl=1", **expected), path, lambda done, total: None)
    return path


def fail(host: Standin, folder: Path, error: type[PullError], message: str, **expected) -> None:
    """Downloads in vain: with this error, in one sentence, and without a file that looks complete."""
    with pytest.raises(error, match=message) as caught:
        fetch(host, folder, **expected)
    assert "\n" not in str(caught.value)
    assert not (folder / "weights.pth").exists()


def test_a_file_arrives_whole_with_nothing_beside_it(host, tmp_path):
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    path = fetch(host, tmp_path / "new" / "folder", size_bytes=len(CONTENT), sha256=sha256)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def test_progress_rises_to_the_whole_size(host, tmp_path):
    steps: list[tuple[int, int | None]] = []
    download(
        RemoteFile(f"{host.url}/blobs/weights.pth"), tmp_path / "w", lambda done, total: steps.append((done, total))
    )
    assert steps == sorted(steps)
    assert len(steps) > 5
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_a_broken_connection_is_taken_up_where_it_broke(host, tmp_path):
    host.break_after = [5000, 3000]
    assert fetch(host, tmp_path).read_bytes() == CONTENT
    assert host.byte_requests() == ["", "bytes=5000-", "bytes=8000-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(host, tmp_path):
    host.break_after = [5000] + [0] * ATTEMPTS
    fail(host, tmp_path, BrokenDownloadError, r"keeps breaking off; 0\.0 MB are kept, and the same command goes on")
    assert len(host.byte_requests()) == 1 + ATTEMPTS
    host.requests.clear()
    assert fetch(host, tmp_path).read_bytes() == CONTENT
    assert host.byte_requests() == ["bytes=5000-"]


def test_a_host_that_only_starts_from_the_beginning_gives_the_file_too(host, tmp_path):
    host.supports_ranges = False
    host.break_after = [5000]
    assert fetch(host, tmp_path).read_bytes() == CONTENT


def test_a_host_that_always_breaks_at_the_same_byte_is_given_up(host, tmp_path):
    """It would be endless to count what a restarted transfer brings again as progress."""
    host.supports_ranges = False
    host.break_after = [5000] * 100
    fail(host, tmp_path, BrokenDownloadError, "keeps breaking off")


def test_parts_of_two_versions_are_never_joined(host, tmp_path):
    host.break_after = [5000] + [0] * ATTEMPTS
    fail(host, tmp_path, BrokenDownloadError, "keeps breaking off")
    host.files["weights.pth"] = CONTENT[::-1]
    assert fetch(host, tmp_path).read_bytes() == CONTENT[::-1]


def test_a_call_that_ended_just_before_the_last_step_is_completed(host, tmp_path):
    fetch(host, tmp_path).rename(tmp_path / "weights.pth.part")
    host.requests.clear()
    assert fetch(host, tmp_path).read_bytes() == CONTENT
    assert host.byte_requests() == [f"bytes={len(CONTENT)}-"]


def test_what_is_longer_than_the_file_is_dropped(host, tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT * 2)
    assert fetch(host, tmp_path).read_bytes() == CONTENT


def test_a_complete_file_is_kept_if_it_is_the_right_one(host, tmp_path):
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    fetch(host, tmp_path)
    fetch(host, tmp_path, sha256=sha256)
    assert host.byte_requests() == [""]
    (tmp_path / "weights.pth").write_bytes(b"something else")
    assert fetch(host, tmp_path, sha256=sha256).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ({"sha256": "0" * 64}, "has the SHA-256 [0-9a-f]{64} instead of 0000"),
        ({"size_bytes": 7}, "has 10240 bytes instead of 7"),
    ],
)
def test_the_wrong_file_is_thrown_away(host, tmp_path, expected, message):
    fail(host, tmp_path, BrokenDownloadError, message, **expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (404, MissingFileError, r"has no file at .* \(404\)"),
        (410, MissingFileError, r"\(410\)"),
        (403, RefusedError, r"refuses .* \(403 Forbidden\)"),
        (429, RefusedError, "429"),
        (503, RefusedError, "503"),
    ],
)
def test_a_status_is_one_clear_error(host, tmp_path, status, error, message):
    host.storage_status = status
    fail(host, tmp_path, error, message)


def test_a_web_page_is_not_taken_for_the_file(host, tmp_path):
    """Google Drive answers with one when too many people have downloaded a file that day."""
    host.content_type = "text/html; charset=utf-8"
    fail(host, tmp_path, RefusedError, "answers with a web page instead of the file")


def test_no_server_is_one_clear_error_at_once(tmp_path):
    with run_standin() as gone:
        pass
    (tmp_path / "weights.pth.part").write_bytes(CONTENT[:100])
    fail(gone, tmp_path, UnreachableError, r"127\.0\.0\.1:\d+ cannot be reached")
    assert (tmp_path / "weights.pth.part").read_bytes() == CONTENT[:100]


def test_a_disk_without_room_is_seen_before_it_is_full(host, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=5000))
    fail(host, tmp_path, DiskError, "needs 0 MB and its disk has 0 MB free")
    with pytest.raises(DiskError, match="needs 346 MB and its disk has 0 MB free"):
        check_space(tmp_path, 346_000_000)


def test_a_disk_that_fills_up_is_given_its_room_back(host, tmp_path, monkeypatch):
    def refuse(part, chunk):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module._Part, "append", refuse)
    fail(host, tmp_path, DiskError, r"cannot be written \(No space left on device\)")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(host, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DiskError, match="cannot be written"):
        fetch(host, tmp_path / "file" / "folder")


def test_headers_stay_with_the_host_they_are_for(host, tmp_path):
    fetch(host, tmp_path, headers={"Authorization": "Bearer secret"})
    assert host.authorized_hosts == {"127.0.0.1"}
