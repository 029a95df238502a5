"""`POST /classify` as a stream: a message for every window as it is tagged, then the plain answer, or an error.

    {"type": "window", ...window, "progress": {"heard_seconds", "duration_seconds"}}      as often as there are windows
    {"type": "summary", ...the answer of `POST /classify`}  or  {"type": "error", ...the error body}       once, last

Until the first message, or the first heartbeat, is ready no head is sent, so what fails early has its own status.
A reader who is slow slows the tagging down: the next window is asked for when the one before has left.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from model.pipeline import Tagging
from model.scores import WindowTags
from server.disconnect import ClientLeftError, unless_disconnected
from server.errors import answer_error
from server.flow import Hearing, conclude, open_tagger, service_of, tag_options
from server.formats import Report, answer, window_values
from server.parameters import InvalidParameterError
from server.schemas import TagQuery
from server.tagging import HeardWindow, UploadTagger
from server.uploads import Upload
from server.window_scorer import WindowScorer

log = structlog.get_logger()

SEND_BYTES = 65_536  # given to the connection at once: a summary of hours is too long to be taken in one go
HEARTBEAT_SECONDS = 10.0  # well below the minute after which proxies give up a silent connection
Message = dict[str, Any]


@dataclass(frozen=True)
class Framing:
    """How messages are written; `heartbeat` is sent while there is none."""

    media_type: str
    kind: Literal["sse", "ndjson"]

    @property
    def heartbeat(self) -> bytes:
        """A comment in an event stream; NDJSON has no line that means nothing."""
        return b": still tagging\n\n" if self.kind == "sse" else b""

    def write(self, message: Message) -> bytes:
        """One message; an event stream names it by its type, and holds the same JSON."""
        line = orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE)
        return b"event: %s\ndata: %s\n" % (message["type"].encode(), line) if self.kind == "sse" else line


SSE = Framing("text/event-stream", "sse")
NDJSON = Framing("application/x-ndjson", "ndjson")
_FRAMINGS: dict[str, Framing | None] = {
    **{"text/event-stream": SSE, "application/x-ndjson": NDJSON},
    **{"application/ndjson": NDJSON, "application/json": None, "application/*": None, "*/*": None},
}


def choose_framing(accept: str) -> Framing | None:
    """What an Accept header likes best, and names first, of the two streams and the plain answer (None).

    Of several headers give the values joined with commas, as they are one list (RFC 9110, 5.3).
    """
    best, best_quality = None, 0.0
    for part in accept.lower().split(","):
        media_type, *parameters = (piece.strip() for piece in part.split(";"))
        if media_type in _FRAMINGS and (quality := _quality(parameters)) > best_quality:
            best, best_quality = _FRAMINGS[media_type], quality
    return best


def check_format(framing: Framing | None, query: TagQuery) -> None:
    """Raises: InvalidParameterError for a stream of anything but JSON."""
    if framing is not None and query.format != "json":
        raise InvalidParameterError(
            f"a stream ({framing.media_type}) holds JSON, not format={query.format}; leave one of the two out"
        )


async def answer_as_stream(request: Request, upload: Upload, query: TagQuery, framing: Framing) -> Response:
    """The streamed answer, once its first message or a heartbeat is ready.

    Raises: what `server.flow.hear` raises, as long as nothing has been sent.
    """
    messages = with_heartbeats(tag_messages(request, open_tagger(request, upload, query), query), HEARTBEAT_SECONDS)

    async def take_first() -> Message | None:
        return await anext(messages)

    first = await unless_disconnected(request, take_first())
    return StreamedAnswer(request, first, messages, framing)


async def tag_messages(request: Request, tagger: UploadTagger, query: TagQuery) -> AsyncGenerator[Message, None]:
    """A message per window, then the summary."""
    service, hearing = service_of(request), Hearing(tagger)
    scorer = WindowScorer(tagger.model, tagger.own, tag_options(tagger.model, query))
    async with tagger:
        async for window in tagger.windows():
            hearing.add(window)
            tags = await service.run_in_thread(tag_window, scorer, window)
            progress = {"heard_seconds": window.end_seconds, "duration_seconds": tagger.declared_seconds}
            yield {"type": "window", **window_values(tags), "progress": progress}
    heard = hearing.heard()
    tagging: Tagging = await conclude(service, heard, query)
    extra = {"provenance": heard.provenance, "request_id": heard.request_id}
    report = Report(tagging, extra={"timing": heard.timings.milliseconds(), **extra})
    yield {"type": "summary", **answer(report)}


def tag_window(scorer: WindowScorer, window: HeardWindow) -> WindowTags:
    """One window's labels, exactly those that the summary will have for it."""
    best = scorer.top(scorer.score(window.logits, window.own_scores))
    return WindowTags(window.start_seconds, window.end_seconds, best, window.channel)


async def with_heartbeats(
    messages: AsyncGenerator[Message, None], seconds: float
) -> AsyncGenerator[Message | None, None]:
    """Passes messages on, and None whenever there was none for so long."""
    waiting: asyncio.Task[Message | None] | None = None

    async def take_next() -> Message | None:
        return await anext(messages, None)

    async with aclosing(messages):
        try:
            while True:
                waiting = waiting or asyncio.create_task(take_next())
                done, _ = await asyncio.wait({waiting}, timeout=seconds)
                if not done:
                    yield None
                    continue
                message, waiting = waiting.result(), None
                if message is None:
                    return
                yield message
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)


class StreamedAnswer(Response):
    """Sends messages one after the other; a caller who leaves, or reads nothing for too long, ends them."""

    def __init__(
        self, request: Request, first: Message | None, rest: AsyncGenerator[Message | None, None], framing: Framing
    ) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # a proxy shall pass messages on at once
        super().__init__(headers=headers, media_type=framing.media_type)
        del self.headers["content-length"]
        self._request = request
        self._first = first
        self._rest = rest
        self._framing = framing
        self._service = service_of(request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises nothing once the head is out: a connection that has ended cannot be told why."""
        try:
            await unless_disconnected(Request(scope, receive), self._send(send))
        except (ClientLeftError, OSError) as error:
            self._service.metrics.cancelled.inc()
            log.info("stream ended early", reason=str(error))

    async def _send(self, send: Send) -> None:
        async with aclosing(self._rest), aclosing(self._parts()) as parts:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for part in parts:
                for start in range(0, len(part), SEND_BYTES):
                    await self._send_bytes(send, part[start : start + SEND_BYTES])
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_bytes(self, send: Send, part: bytes) -> None:
        seconds = self._service.settings.stream_idle_seconds
        try:
            async with asyncio.timeout(seconds):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        except TimeoutError as error:
            raise ClientLeftError(f"the reader took nothing for {seconds:g} seconds") from error

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        """The messages as bytes; an error becomes the last one."""
        try:
            async for message in self._messages():
                yield self._framing.heartbeat if message is None else self._framing.write(message)
        except Exception as error:
            body = orjson.loads(answer_error(error, self._request).body)
            yield self._framing.write({"type": "error", **body})

    async def _messages(self) -> AsyncIterator[Message | None]:
        yield self._first
        async for message in self._rest:
            yield message


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
