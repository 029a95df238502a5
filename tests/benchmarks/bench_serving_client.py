"""What the serving benchmark sends: clips, single requests, closed and open loops of clients, and a server's memory."""

import asyncio
import gc
import io
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httptools
import numpy as np
import soundfile
import uvloop

from server.memory import resident_bytes

RATE = 16_000
PATIENCE_SECONDS = 600


@dataclass(frozen=True)
class Reply:
    """One request's end: status 0 where the connection broke, -1 where there was none to be had."""

    status: int
    started: float
    seconds: float
    body: bytes = b""
    retry_after: str | None = None

    @property
    def finished(self) -> float:
        return self.started + self.seconds


def make_clip(seconds: float, seed: int = 0) -> bytes:
    """Seeded noise as 16-bit WAV."""
    file = io.BytesIO()
    waveform = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))
    soundfile.write(file, waveform, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def write_long_clip(path: Path, seconds: float) -> None:
    """Noise of any length, written a minute at a time."""
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="WAV") as file:
        left = round(seconds * RATE)
        noise = np.random.default_rng(0).normal(0, 0.1, 60 * RATE)
        while left:
            file.write(noise[: min(left, len(noise))])
            left -= min(left, len(noise))


class Client:
    """One connection to a server, kept open between requests and opened anew where it was closed.

    It shares the machine with the server, so it is lean: no more than a socket and a parser.
    """

    def __init__(self, url: str, keep: bool = True) -> None:
        self._address = urlsplit(url).netloc
        self._keep = keep
        self._socket: socket.socket | None = None

    def post(self, body: bytes | Path, query: str = "") -> Reply:
        """Sends a sound to `/classify`."""
        started = time.perf_counter()
        try:
            if self._socket is None:
                host, _, port = self._address.rpartition(":")
                self._socket = socket.create_connection((host, int(port)), PATIENCE_SECONDS)
        except OSError:
            return Reply(-1, started, time.perf_counter() - started)
        try:
            return self._exchange(self._socket, body, query, started)
        except (OSError, httptools.HttpParserError):
            self.close()
            return Reply(0, started, time.perf_counter() - started)

    def _exchange(self, connection: socket.socket, body: bytes | Path, query: str, started: float) -> Reply:
        size = body.stat().st_size if isinstance(body, Path) else len(body)
        head = _head(self._address, query, size, "" if self._keep else "Connection: close\r\n")
        if isinstance(body, Path):
            connection.sendall(head)
            with body.open("rb") as file:
                connection.sendfile(file)
        else:
            connection.sendall(head + body)
        answer = _Answer()
        while not answer.is_whole:
            data = connection.recv(2**16)
            if not data:
                raise ConnectionResetError
            answer.parser.feed_data(data)
        seconds = time.perf_counter() - started
        if not (answer.keeps_alive and self._keep):
            self.close()
        return answer.reply(started, seconds)

    def close(self) -> None:
        """Closes the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _head(address: str, query: str, size: int, more: str = "") -> bytes:
    return f"POST /classify{query} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {size}\r\n{more}\r\n".encode()


class _Answer:
    """Gathers what the parser finds in an answer."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body: list[bytes] = []
        self.retry_after: str | None = None
        self.is_whole = False
        self.keeps_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.retry_after = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.is_whole = True
        self.keeps_alive = self.parser.should_keep_alive()  # it knows no more when asked later

    def reply(self, started: float, seconds: float) -> Reply:
        return Reply(self.parser.get_status_code(), started, seconds, b"".join(self.body), self.retry_after)


def closed_loop(url: str, clients: int, seconds: float, body: bytes, query: str = "", keep: bool = True) -> list[Reply]:
    """So many clients, each sending its next request when the last is answered; ends with the requests then open."""
    until = time.perf_counter() + seconds

    def run(_: int) -> list[Reply]:
        client, replies = Client(url, keep), []
        while time.perf_counter() < until:
            replies.append(client.post(body, query))
            if replies[-1].status == -1:
                break
        client.close()
        return replies

    with ThreadPoolExecutor(clients) as pool:
        return [reply for replies in pool.map(run, range(clients)) for reply in replies]


def open_loop(url: str, rate: float, seconds: float, body: bytes, query: str) -> list[Reply]:
    """Requests at random moments (Poisson), `rate` per second, whatever becomes of those before.

    It shares the cores with the server, and its own pauses would be taken for the server's: one thread for all
    requests, a callback for each and no task, and no garbage collector meanwhile.
    """
    gc.disable()
    try:
        return uvloop.run(_OpenLoop(urlsplit(url).netloc, query, body).send(_arrivals(random.Random(0), rate, seconds)))
    finally:
        gc.enable()


class _OpenLoop:
    """Sends one request again and again, each over a connection that is free at its moment."""

    def __init__(self, address: str, query: str, body: bytes) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self.request = _head(address, query, len(body)) + body
        self.replies: list[Reply] = []
        self.free: list[_Connection] = []
        self._connections: list[_Connection] = []

    async def send(self, moments: Iterator[float]) -> list[Reply]:
        """Sends at these moments, in seconds from half a second on; the replies, all of them or what patience got."""
        start, sent, asking = time.perf_counter() + 0.5, 0, list[asyncio.Task[None]]()
        for after in moments:
            sent += 1
            await asyncio.sleep(start + after - time.perf_counter())
            if self.free:
                self.free.pop().ask(start + after)
            else:
                asking.append(asyncio.create_task(self._ask_anew(start + after)))
        until = time.perf_counter() + PATIENCE_SECONDS
        while len(self.replies) < sent and time.perf_counter() < until:
            await asyncio.sleep(0.01)
        for connection in self._connections:
            connection.close()  # which ends what still waits for an answer
        await asyncio.gather(*asking)
        await asyncio.sleep(0)
        return self.replies

    async def _ask_anew(self, moment: float) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        except OSError:
            self.replies.append(Reply(-1, moment, time.perf_counter() - moment))
        else:
            self._connections.append(connection)
            connection.ask(moment)


class _Connection(asyncio.Protocol):
    """One connection of the open loop, free again after each answer until the server closes it or says that it will."""

    def __init__(self, loop: _OpenLoop) -> None:
        self._loop = loop
        self._answer: _Answer | None = None  # to what was asked last, until it is whole

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def ask(self, moment: float) -> None:
        """Sends the request that was due at this moment; its reply comes to the loop."""
        self._answer, self._moment = _Answer(), moment
        if self._transport.is_closing():
            self.connection_lost(None)
        else:
            self._transport.write(self._loop.request)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Ends the connection at once."""
        self._transport.abort()  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            return
        answer.parser.feed_data(data)
        if answer.is_whole:
            self._answer = None
            self._loop.replies.append(answer.reply(self._moment, time.perf_counter() - self._moment))
            if answer.keeps_alive:
                self._loop.free.append(self)
            else:
                self.close()

    def connection_lost(self, error: Exception | None) -> None:
        if self in self._loop.free:
            self._loop.free.remove(self)
        if self._answer is not None:
            self._answer = None
            self._loop.replies.append(Reply(0, self._moment, time.perf_counter() - self._moment))


def _arrivals(dice: random.Random, rate: float, seconds: float) -> Iterator[float]:
    moment = 0.0
    while (moment := moment + dice.expovariate(rate)) < seconds:
        yield moment


def rate_of(replies: list[Reply], start: float, seconds: float) -> float:
    """Answers with status 200 per second, of those that came within the span."""
    return sum(reply.status == 200 and start <= reply.finished < start + seconds for reply in replies) / seconds


@contextmanager
def watch_memory(pid: int) -> Iterator[Callable[[], int]]:
    """Inside, gives the most memory seen so far, looked at ten times a second."""
    most, ended = [resident_bytes(pid)], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            most[0] = max(most[0], resident_bytes(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: most[0]
    finally:
        ended.set()
        thread.join()


def quantile(values: list[float], share: float) -> float:
    """The smallest value that so large a share does not exceed; not a number where there are no values."""
    ordered = sorted(values) or [float("nan")]
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]
