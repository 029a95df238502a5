"""Bytes that are no HTTP, over a real socket: the one error body, an id, and a closed connection."""

import asyncio
import json
import random
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from server import http_protocol
from server.door import Door
from server.service import Service
from tests.server.harness import encode, listening, sine
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
    monkeypatch.setattr(http_protocol, "CALLER_SECONDS", 0.05)
    async with listening(**FULL) as (client, _):
        for sent in (b"", b"GET / HTTP/1.1\r\nHost: h"):
            reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
            writer.write(sent)
            assert await asyncio.wait_for(reader.read(), 20) == b""
            writer.close()
            await writer.wait_closed()


# Refused before the body is read

CLIP = encode(sine(5.0))
FULL = {"max_requests": 1, "fake_window_seconds": 1.0, "models": ["fake"]}
"""A server with one place, whose answers take long enough to find it taken."""


def post(*headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST /classify HTTP/{version}", "Host: hark", f"Content-Length: {len(CLIP)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


@asynccontextmanager
async def full() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, Service]]:
    """A connection to a server whose one place is taken."""
    async with listening(**FULL) as (client, service):
        lane, place = service.model(None).lane, object()
        service.engine.begin_reception(lane, place)
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        yield reader, writer, service
        writer.close()
        assert service.engine._receiving.keys() == {place}, "who was refused holds no place"


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and the body of the next answer on a connection."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


@pytest.mark.anyio
async def test_the_connection_of_a_refused_request_serves_the_next() -> None:
    async with full() as (reader, writer, service):
        for _ in range(3):
            writer.write(post() + CLIP[:1000])
            status, headers, body = await read_answer(reader)  # before the body has come
            assert (status, json.loads(body)["error_type"]) == (503, "overloaded")
            assert headers["content-type"] == "application/json"
            assert headers["x-request-id"] == json.loads(body)["request_id"]
            writer.write(CLIP[1000:] + b"GET /livez HTTP/1.1\r\nHost: hark\r\n\r\n")
            assert (await read_answer(reader))[0] == 200
        assert service.metrics.registry.get_sample_value("hark_rejected_total", {"reason": "full"}) == 3


@pytest.mark.anyio
@pytest.mark.parametrize("drops", [True, False])  # where the system can, and where it cannot
@pytest.mark.parametrize("seed", range(4))
async def test_a_refused_body_may_come_in_any_pieces(drops: bool, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if not drops:
        monkeypatch.setattr(sys, "platform", "other")
    chance = random.Random(seed)
    async with full() as (reader, writer, _):
        sent = 5 * (post() + CLIP + b"GET /livez HTTP/1.1\r\nHost: hark\r\n\r\n")
        while sent:
            piece = chance.choice((1, 100, 2**14, 2**16, 2**19))
            writer.write(sent[:piece])
            sent = sent[piece:]
            await asyncio.sleep(chance.choice((0, 0.001)))
        assert [(await read_answer(reader))[0] for _ in range(10)] == 5 * [503, 200]


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops what is not read")
async def test_a_refused_body_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    monkeypatch.setattr(http_protocol.HttpProtocol, "on_body", count_bodies(http_protocol.HttpProtocol.on_body, read))
    async with full() as (reader, writer, _):
        for _ in range(3):
            writer.write(post() + CLIP)
            assert (await read_answer(reader))[0] == 503
        await asyncio.sleep(0.1)
        assert 0 < sum(read) < 3 * 2**15 < 3 * len(CLIP)


def count_bodies(on_body: Callable[..., None], lengths: list[int]) -> Callable[..., None]:
    def counted(protocol: http_protocol.HttpProtocol, body: bytes) -> None:
        lengths.append(len(body))
        on_body(protocol, body)

    return counted


def test_a_connection_survives_large_refused_bodies() -> None:
    """Of a real server, with the event loop that it runs on."""
    with live_server(MODELS="fake", MAX_REQUESTS="1") as live:
        address = urlsplit(live.url)
        place = address.hostname, address.port
        with socket.create_connection(place, 20) as holder, socket.create_connection(place, 20) as caller:
            holder.sendall(b"POST /classify HTTP/1.1\r\nHost: hark\r\nContent-Length: 9\r\n\r\n")  # and no body
            head = b"POST /classify HTTP/1.1\r\nHost: hark\r\nContent-Length: 5000000\r\n\r\n"
            statuses = []
            for _ in range(4):
                caller.sendall(head + bytes(5_000_000) + b"GET /livez HTTP/1.1\r\nHost: hark\r\n\r\n")
                answer = b""
                while b"alive" not in answer:
                    answer += caller.recv(65_536)
                statuses += re.findall(rb"HTTP/1.1 (\d+)", answer)
        assert statuses == 4 * [b"503", b"200"]


@pytest.mark.anyio
async def test_refused_requests_sent_at_once_are_answered_one_by_one() -> None:
    async with full() as (reader, writer, _):
        small = b"POST /classify HTTP/1.1\r\nHost: hark\r\nX-Request-ID: %d\r\nContent-Length: 3\r\n\r\nabc"
        writer.write(b"".join(small % number for number in range(2000)))
        for number in range(2000):
            status, headers, _ = await read_answer(reader)
            assert (status, headers["x-request-id"]) == (503, str(number))


@pytest.mark.anyio
@pytest.mark.parametrize("head", [post("Connection: close"), post(version="1.0")])
async def test_a_refused_request_that_ends_its_connection_is_read_to_its_end(head: bytes) -> None:
    async with full() as (reader, writer, _):
        writer.write(head)
        status, headers, _ = await read_answer(reader)
        assert (status, headers["connection"]) == (503, "close")
        writer.write(CLIP)
        await writer.drain()
        assert await asyncio.wait_for(reader.read(), 20) == b""


@pytest.mark.anyio
@pytest.mark.parametrize("head", [post("Expect: 100-continue"), post("Upgrade: h2c", "Connection: Upgrade")])
async def test_what_the_door_leaves_alone_the_routes_refuse(head: bytes) -> None:
    async with full() as (reader, writer, _):
        writer.write(head)
        assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 503")


@pytest.mark.anyio
async def test_a_door_that_fails_leaves_it_to_the_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Door, "refusal", lambda *_: 1 / 0)
    async with full() as (reader, writer, _):
        writer.write(post() + CLIP)
        assert (await read_answer(reader))[0] == 503


@pytest.mark.anyio
async def test_the_rest_of_a_refused_body_is_not_awaited_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "CALLER_SECONDS", 0.2)
    async with full() as (reader, writer, _):
        writer.write(post())
        await read_answer(reader)
        for _ in range(6):  # a slow caller is no absent one
            writer.write(CLIP[:100])
            await asyncio.sleep(0.05)
        assert not reader.at_eof()
        assert await asyncio.wait_for(reader.read(), 20) == b""
