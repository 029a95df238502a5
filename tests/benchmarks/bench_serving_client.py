"""What the serving benchmark sends: clips, single requests, closed and open loops of clients, and a server's memory."""

import io
import os
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

    def post(self, body: bytes | Path, query: str = "", scheduled: float | None = None) -> Reply:
        """Sends a sound to `/classify`; seconds count from when it was `scheduled`, by default from now."""
        started = time.perf_counter() if scheduled is None else scheduled
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
        more = "" if self._keep else "Connection: close\r\n"
        head = f"POST /classify{query} HTTP/1.1\r\nHost: {self._address}\r\nContent-Length: {size}\r\n{more}\r\n"
        connection.sendall(head.encode())
        if isinstance(body, Path):
            with body.open("rb") as file:
                connection.sendfile(file)
        else:
            connection.sendall(body)
        answer = _Answer()
        while not answer.is_whole:
            data = connection.recv(2**16)
            if not data:
                raise ConnectionResetError
            answer.parser.feed_data(data)
        seconds = time.perf_counter() - started
        if not (answer.parser.should_keep_alive() and self._keep):
            self.close()
        return answer.reply(started, seconds)

    def close(self) -> None:
        """Closes the connection; the next request opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class _Answer:
    """Gathers what the parser finds in an answer."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.body: list[bytes] = []
        self.retry_after: str | None = None
        self.is_whole = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.retry_after = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.is_whole = True

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


def open_loop(url: str, rate: float, seconds: float, body: bytes, query: str, clients: int = 256) -> list[Reply]:
    """Requests at random moments (Poisson), `rate` per second, whatever becomes of those before."""
    dice, lock = random.Random(0), threading.Lock()
    start = time.perf_counter() + 0.5
    arrivals = iter(_arrivals(dice, start, rate, seconds))

    def run(_: int) -> list[Reply]:
        client, replies = Client(url), []
        while True:
            with lock:
                moment = next(arrivals, None)
            if moment is None:
                client.close()
                return replies
            time.sleep(max(0.0, moment - time.perf_counter()))
            replies.append(client.post(body, query, moment))

    with ThreadPoolExecutor(clients) as pool:
        return [reply for replies in pool.map(run, range(clients)) for reply in replies]


def _arrivals(dice: random.Random, start: float, rate: float, seconds: float) -> Iterator[float]:
    moment = start
    while (moment := moment + dice.expovariate(rate)) < start + seconds:
        yield moment


def rate_of(replies: list[Reply], start: float, seconds: float) -> float:
    """Answers with status 200 per second, of those that came within the span."""
    return sum(reply.status == 200 and start <= reply.finished < start + seconds for reply in replies) / seconds


def resident_bytes(pid: int) -> int:
    """Memory that the process and its children hold now."""
    own = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    children = [child for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    return own + sum(resident_bytes(int(child)) for child in children)


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
