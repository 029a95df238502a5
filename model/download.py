"""One file over HTTP: resumed where it stopped, verified, and at its place whole or not at all.

    NAME.part        what has arrived so far; a later call goes on from there (HTTP Range)
    NAME.part.tag    which version of the file that is: a server that now has another one starts it anew
    NAME             all of it, of the size and with the SHA-256 that were expected

PullError
  UnreachableError      the server does not answer at all
  MissingFileError      the server answers that there is no such file
  RefusedError          the server answers something else than the file
  BrokenDownloadError   the transfer kept breaking off, or what came is not the file that was expected
  DiskError             the disk is full, or does not let us write
"""

import hashlib
import http.client
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

CHUNK_BYTES = 2**20
TIMEOUT_SECONDS = 30.0
"""Longest silence of a server, not the longest download."""

ATTEMPTS = 5
"""Times in a row that a transfer may break off without a single new byte."""

PAUSE_SECONDS = 1.0
MEGABYTE = 10**6

NOT_FOUND = (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE)

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and, where it is known, their number in the end."""


class PullError(Exception):
    """A published checkpoint cannot be had; the message says why in one sentence."""


class UnreachableError(PullError):
    """The server does not answer: no network, a wrong address, or a server that is down."""


class MissingFileError(PullError):
    """There is no such file (any more)."""


class RefusedError(PullError):
    """The server will not give the file: not allowed, too many requests, an error of its own, or a page instead."""


class BrokenDownloadError(PullError):
    """The transfer never came to its end, or its size or SHA-256 is wrong."""


class DiskError(PullError):
    """The disk is full, or the folder cannot be written."""


class _InterruptedTransferError(Exception):
    """The connection broke in the middle; another attempt goes on from there."""


class _RangeError(Exception):
    """The server has nothing behind what has arrived; `total_bytes` is the file's size, if it says so."""

    def __init__(self, total_bytes: int | None) -> None:
        self.total_bytes = total_bytes


@dataclass(frozen=True)
class RemoteFile:
    """Where a file is and what is known of it; `headers` are sent to the URL's own host, not where it redirects to."""

    url: str
    size_bytes: int | None = None
    sha256: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        """The server's name, for messages."""
        return urlsplit(self.url).netloc


class _Part:
    """What has arrived of a file, and which version of it."""

    def __init__(self, path: Path) -> None:
        self.target = path
        self.path = path.with_name(f"{path.name}.part")
        self.tag_path = path.with_name(f"{path.name}.part.tag")

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def is_of(self, tag: str) -> bool:
        return self.tag_path.exists() and self.tag_path.read_text() == tag

    def start(self, tag: str) -> None:
        self.path.write_bytes(b"")
        self.tag_path.write_text(tag)

    def append(self, chunk: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(chunk)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.tag_path.unlink(missing_ok=True)

    def finish(self) -> None:
        os.replace(self.path, self.target)
        self.tag_path.unlink(missing_ok=True)


def download(remote: RemoteFile, path: Path, progress: Progress) -> None:
    """Bring a file to `path`, going on where an earlier call stopped; one that lies there and is right is kept.

    Raises: PullError, see the module's tree. What arrived stays for another call, unless it is wrong or fills the disk.
    """
    part = _Part(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and _find_fault(remote, path) is None:
            return
        _receive_all(remote, part, progress)
        if fault := _find_fault(remote, part.path):
            part.discard()
            raise BrokenDownloadError(f"{path.name} from {remote.host} {fault}; it was thrown away, try again")
        part.finish()
    except OSError as error:
        with suppress(OSError):
            part.discard()
        raise DiskError(f"{path.parent} cannot be written ({error.strerror or error})") from error


def check_space(folder: Path, needed_bytes: int) -> None:
    """Check that a file of so many bytes fits on the disk.

    Raises: DiskError giving both numbers.
    """
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        needed, free = needed_bytes / MEGABYTE, free_bytes / MEGABYTE
        raise DiskError(f"{folder} needs {needed:.0f} MB and its disk has {free:.0f} MB free")


def _receive_all(remote: RemoteFile, part: _Part, progress: Progress) -> None:
    """Receives until the file is complete, or breaks off ATTEMPTS times without getting further than ever."""
    furthest_bytes, fruitless, has_answered = part.size_bytes, 0, False
    while True:
        try:
            return _receive(remote, part, progress)
        except (_InterruptedTransferError, UnreachableError) as error:
            if isinstance(error, UnreachableError) and not has_answered:
                raise
            fruitless = 0 if part.size_bytes > furthest_bytes else fruitless + 1
            if fruitless == ATTEMPTS:
                raise BrokenDownloadError(
                    f"the download from {remote.host} keeps breaking off; {part.size_bytes / MEGABYTE:.1f} MB are "
                    "kept, and the same command goes on from there"
                ) from error
            furthest_bytes, has_answered = max(part.size_bytes, furthest_bytes), True
        time.sleep(PAUSE_SECONDS)


def _receive(remote: RemoteFile, part: _Part, progress: Progress) -> None:
    """Makes one request for what is still missing."""
    try:
        response = _open(remote, part.size_bytes)
    except _RangeError as error:
        if error.total_bytes == part.size_bytes:
            return
        part.discard()
        raise _InterruptedTransferError from error
    with response:
        total_bytes = _total_bytes(response.headers)
        tag = json.dumps([remote.sha256 or response.headers.get("ETag"), total_bytes])
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            _refuse_page(remote, response)
            part.start(tag)
        elif not part.is_of(tag):
            part.discard()
            raise _InterruptedTransferError
        check_space(part.path.parent, (total_bytes or 0) - part.size_bytes)
        while chunk := _read(response):
            part.append(chunk)
            progress(part.size_bytes, total_bytes)
    if total_bytes is not None and part.size_bytes < total_bytes:
        raise _InterruptedTransferError


def _open(remote: RemoteFile, start_bytes: int) -> http.client.HTTPResponse:
    request = Request(remote.url, headers={"User-Agent": "hark", "Accept-Encoding": "identity"})
    for name, value in remote.headers.items():
        request.add_unredirected_header(name, value)
    if start_bytes:
        request.add_header("Range", f"bytes={start_bytes}-")
    try:
        return urlopen(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        with error:
            raise _explain(remote, error) from error
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"{remote.host} cannot be reached ({getattr(error, 'reason', error)})") from error


def _explain(remote: RemoteFile, error: HTTPError) -> Exception:
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _RangeError(_total_bytes(error.headers))
    if error.code in NOT_FOUND:
        return MissingFileError(f"{remote.host} has no file at {remote.url} ({error.code})")
    return RefusedError(f"{remote.host} refuses {remote.url} ({error.code} {error.reason})")


def _total_bytes(headers: Message) -> int | None:
    """From `Content-Range: bytes 5-9/10` or `bytes */10`, else from `Content-Length: 10`."""
    total = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length", "")
    return int(total) if total.isdecimal() else None


def _refuse_page(remote: RemoteFile, response: http.client.HTTPResponse) -> None:
    """Raises RefusedError: file hosts show a person a page (a quota, a warning, a login) where a file was asked for."""
    if response.headers.get_content_type() == "text/html":
        raise RefusedError(f"{remote.host} answers with a web page instead of the file")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _InterruptedTransferError from error


def _find_fault(remote: RemoteFile, path: Path) -> str | None:
    """Tells in what a file is not the one that was expected."""
    if remote.size_bytes is not None and path.stat().st_size != remote.size_bytes:
        return f"has {path.stat().st_size} bytes instead of {remote.size_bytes}"
    if remote.sha256 is None:
        return None
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return None if sha256 == remote.sha256 else f"has the SHA-256 {sha256} instead of {remote.sha256}"
