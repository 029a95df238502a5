"""uvicorn's HTTP protocol, with the one error body for bytes that are no HTTP, and an end to heads that never end.

It asks the door as soon as a head has come: under overload most requests end there, and what each of them costs is
taken from those that were let in.
"""

import asyncio
from contextlib import suppress

import httptools
import structlog
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.door import Door
from server.errors import error_body
from server.request_id import new_request_id
from server.schemas import JsonAnswer
from server.uploads import declared_bytes

log = structlog.get_logger()
SENTENCE = "this is not a well-formed HTTP/1.1 request; no more is read from this connection"
CALLER_SECONDS = 30.0  # for a request's line and headers, or for the next piece of a body that nobody reads

MOST_AT_ONCE = 16  # requests refused of what one read brought; for other callers nothing happens meanwhile


class HttpProtocol(HttpToolsProtocol):
    """What reads requests from one connection."""

    _clock: asyncio.TimerHandle
    _came: float | None = None  # when the last piece came of a request that is not whole; a head counts as one piece
    _is_refused = False  # whether the request whose body is coming has had its answer from the door
    _closes = False  # whether the connection ends with that request
    refused_bytes_missing = 0  # of its body, where its head says how long that is
    _refused_at_once = 0  # of the requests that one read brought

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock, with the first request's head."""
        super().connection_made(transport)
        self._came = self.loop.time()
        self._clock = self.loop.call_later(CALLER_SECONDS, self._look)

    def data_received(self, data: bytes) -> None:
        """What one read brought."""
        self._refused_at_once = 0
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Awaits the rest of a head."""
        super().on_message_begin()
        self._came = self.loop.time()

    def on_headers_complete(self) -> None:
        """Asks the door first."""
        answer = self._refusal()
        if answer is None:
            super().on_headers_complete()
        else:
            self._is_refused, self._closes = True, not self._stays_open
            self.refused_bytes_missing = declared_bytes(self.headers) or 0
            self._refused_at_once += 1
            if self._closes:
                answer.headers["Connection"] = "close"
            self._write(answer)

    def on_body(self, body: bytes) -> None:
        """Awaits the next piece; a refused request's is dropped."""
        if not self._is_refused:
            super().on_body(body)
        elif self.refused_bytes_missing:
            self.refused_bytes_missing -= len(body)
        self._came = self.loop.time()

    def drop(self, count: int) -> None:
        """Awaits less of a refused body: so many bytes of what is missing came, and were not parsed."""
        if count:
            self._came = self.loop.time()
            self.refused_bytes_missing -= count
            if not self.refused_bytes_missing:
                self.parser = httptools.HttpRequestParser(self)  # the other one still awaits them
                with suppress(AttributeError):  # as in the constructor
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.on_message_complete()

    def on_message_complete(self) -> None:
        """Awaits nothing, or the next head where the answer was out before."""
        if self._is_refused:
            self._is_refused = False
            if self._closes:
                self.transport.close()
            self.on_response_complete()
        else:
            super().on_message_complete()
        self._came = None if self._answering else self.loop.time()

    def on_response_complete(self) -> None:
        """Awaits from here on what is missing of a request that came while an answer was on its way."""
        super().on_response_complete()
        if self._came is not None:
            self._came = self.loop.time()

    def handle_websocket_upgrade(self) -> None:
        """Stops the clock."""
        self._clock.cancel()
        super().handle_websocket_upgrade()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self._clock.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answers what cannot be parsed, and closes the connection: where the next request begins is unknown.

        A whole request that came before is answered first, and then the connection just ends.
        """
        if self._answering and not self.cycle.more_body:
            self.cycle.keep_alive = False
            return
        if not (self._answering and self.cycle.response_started):
            self._write_400()
        self.transport.close()

    @property
    def receives_body(self) -> bool:
        """Whether the body of a request that was let in is coming."""
        return self._answering and self.cycle.more_body

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _write_400(self) -> None:
        request_id = new_request_id()
        answer = error_body(400, "invalid_input", SENTENCE, request_id)
        answer.headers.update({"X-Request-ID": request_id, "Connection": "close"})
        self._write(answer)
        log.info("refused", error_type="invalid_input", error=SENTENCE, request_id=request_id)

    @property
    def _stays_open(self) -> bool:
        """Whether the connection does after the request whose head has come."""
        return self.parser.get_http_version() == "1.1" and self.parser.should_keep_alive()

    def _refusal(self) -> JsonAnswer | None:
        """The door's, where the answer can be written at once; a caller who sends many heads at once waits his turn."""
        door: Door | None = self.app_state.get("door")
        if door is None or self._answering or self.flow.write_paused or self._refused_at_once == MOST_AT_ONCE:
            return None
        if self.expect_100_continue or self.parser.should_upgrade():
            return None
        try:
            return door.refusal(self.parser.get_method(), self.url, self.headers)
        except Exception:
            log.exception("the door failed")
            return None  # the route finds the same, and answers it

    def _write(self, answer: Response) -> None:
        lines = [STATUS_LINE[answer.status_code]]
        for name, value in (*self.server_state.default_headers, *answer.raw_headers):
            lines += (name, b": ", value, b"\r\n")
        self.transport.write(b"".join((*lines, b"\r\n", answer.body)))

    def _look(self) -> None:
        """Closes the connection when its caller keeps nobody but us waiting; uploads have a limit of their own."""
        now = self.loop.time()
        since = now if self._answering or self._came is None else self._came
        if now - since < CALLER_SECONDS:
            self._clock = self.loop.call_later(since + CALLER_SECONDS - now, self._look)
        else:
            self.transport.close()
