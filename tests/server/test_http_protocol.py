"""Bytes that are no HTTP, over a real socket: the one error body, an id, and a closed connection."""

import asyncio
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from server import http_protocol
from server.http_protocol import HttpProtocol
from tests.server.live import Live, live_server

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server(MODELS="fake") as live:
        yield live


def exchange(live: Live, sent: bytes) -> bytes:
    """What the server answers until it closes the connection."""
    address = urlsplit(live.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as caller:
        caller.sendall(sent)
        received = b""
        while chunk := caller.recv(65_536):
            received += chunk
    return received


@pytest.mark.parametrize(
    "sent",
    [
        b"this is no HTTP\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: hark\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost hark\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: hark\r\nContent-Length: many\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: hark\r\nTransfer-Encoding: chunked\r\n\r\nnot a length\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # HTTPS spoken to the plain port
    ],
)
def test_bytes_that_are_no_http_get_the_one_error_body(live: Live, sent: bytes) -> None:
    head, _, body = exchange(live, sent).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    assert lines[0] == "HTTP/1.1 400 Bad Request"
    assert headers["content-type"] == "application/json"
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) == len(body)
    answer = json.loads(body)
    assert set(answer) == {"error", "error_type", "request_id"}
    assert answer["error_type"] == "invalid_input"
    assert answer["request_id"] == headers["x-request-id"]


def test_what_came_before_on_the_connection_is_answered(live: Live) -> None:
    answer = exchange(live, b"GET /livez HTTP/1.1\r\nHost: hark\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'"status":"alive"' in answer


def test_garbage_behind_a_request_does_not_cost_its_answer(live: Live) -> None:
    """The 400 for what follows was written at once, and stood where the request's own answer belongs."""
    answer = exchange(live, b"GET /models HTTP/1.1\r\nHost: hark\r\n\r\nno HTTP at all\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b" 400 " not in answer


@pytest.mark.anyio
async def test_a_head_that_never_ends_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that sent half a head, or nothing, stayed open for good: a few thousand used up all files."""
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.05)
    config, state = uvicorn.Config(FastAPI(), log_config=None), ServerState()
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: HttpProtocol(config, state, {}), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        for sent in (b"", b"GET / HTTP/1.1\r\nHost: h"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            assert await asyncio.wait_for(reader.read(), 20) == b""
            writer.close()
            await writer.wait_closed()
