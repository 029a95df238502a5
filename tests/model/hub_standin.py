"""A Hugging Face hub, and a file host of the plain kind, on this machine: real HTTP, and it breaks when it is told to.

    /{repo}/resolve/{revision}/{file}   as the hub: small files at once, large ones by a redirect to another host
    /share/{file}?dl=1                  as Dropbox: a redirect
    /blobs/{file}                       the bytes themselves, from the middle too (Range)

The hub answers at 127.0.0.1 and its storage at localhost, so that a test sees which headers cross over.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

COMMIT = "a" * 40


@dataclass
class Standin:
    """What is hosted, what shall go wrong, and what was asked for."""

    url: str = ""
    storage_url: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    large: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    break_after: list[int] = field(default_factory=list)
    """For each coming GET of bytes: after how many of them the connection breaks."""

    supports_ranges: bool = True
    storage_status: int = 200
    content_type: str = "application/octet-stream"
    is_hub: bool = True
    stated_sha256: str | None = None
    """What the hub says of large files instead of the truth."""

    refusal: tuple[int, str] | None = None
    """Status and error code with which the hub answers everything."""

    requests: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range of each request."""

    authorized_hosts: set[str] = field(default_factory=set)
    """Names of the hosts that were sent a token."""

    def byte_requests(self) -> list[str]:
        """The Range of each GET of bytes, "" for those without one."""
        return [span for method, path, span in self.requests if method == "GET" and path.startswith("/blobs/")]


@contextmanager
def run_standin() -> Iterator[Standin]:
    """Serve on a free port until the block ends."""
    standin = Standin()
    handler = type("Handler", (_Handler,), {"standin": standin})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        standin.url = f"http://127.0.0.1:{server.server_port}"
        standin.storage_url = f"http://localhost:{server.server_port}"
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield standin
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    standin: Standin

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.standin.requests.append((self.command, path, self.headers.get("Range", "")))
        if self.headers.get("Authorization"):
            self.standin.authorized_hosts.add(self.headers["Host"].partition(":")[0])
        repo, found, rest = path.strip("/").partition("/resolve/")
        if found:
            self._answer_as_hub(repo, rest.partition("/")[2])
        elif path.startswith("/share/"):
            self._send(302, {"Location": f"{self.standin.storage_url}/blobs/{path.removeprefix('/share/')}"})
        else:
            self._send_bytes(path.removeprefix("/blobs/"))

    def _answer_as_hub(self, repo: str, filename: str) -> None:
        standin = self.standin
        if standin.refusal:
            return self._send(standin.refusal[0], {"X-Error-Code": standin.refusal[1]})
        if repo not in standin.repos:
            return self._send(401, {"X-Error-Code": "RepoNotFound"})
        commit = {"X-Repo-Commit": COMMIT} if standin.is_hub else {}
        content = standin.repos[repo].get(filename)
        if content is None:
            return self._send(404, {"X-Error-Code": "EntryNotFound", **commit})
        if filename not in standin.large:
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return self._send(200, {"ETag": f'"{etag}"', "Content-Length": str(len(content)), **commit}, content)
        standin.files[filename] = content
        sha256 = standin.stated_sha256 or hashlib.sha256(content).hexdigest()
        linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{sha256}"'}
        self._send(302, {"Location": f"{standin.storage_url}/blobs/{filename}", **linked, **commit})

    def _send_bytes(self, filename: str) -> None:
        standin = self.standin
        content = standin.files.get(filename)
        if content is None:
            return self._send(404, {})
        if standin.storage_status != 200:
            return self._send(standin.storage_status, {})
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        headers = {"ETag": f'"{hashlib.md5(content).hexdigest()}"', "Content-Type": standin.content_type}
        if start and start >= len(content):
            return self._send(416, {"Content-Range": f"bytes */{len(content)}"})
        if start and standin.supports_ranges:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            status, body = 206, content[start:]
        else:
            status, body = 200, content
        kept = standin.break_after.pop(0) if standin.break_after else len(body)
        self._send(status, {**headers, "Content-Length": str(len(body))}, body[:kept])
        self.close_connection = True

    def _send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
