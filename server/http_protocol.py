"""uvicorn's HTTP protocol, with the one error body for bytes that are no HTTP, and an end to heads that never end."""

import asyncio
import uuid

import orjson
import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = structlog.get_logger()
SENTENCE = "this is not a well-formed HTTP/1.1 request; no more is read from this connection"
HEAD_SECONDS = 30.0  # for a request's line and headers; bodies have a limit of their own


class HttpProtocol(HttpToolsProtocol):
    """What reads requests from one connection."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock of the first request's head."""
        super().connection_made(transport)
        self._await_head()

    def on_message_begin(self) -> None:
        """Starts the clock of a later request's head."""
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        """Stops the clock."""
        self._forget_head()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock."""
        self._forget_head()
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
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _write_400(self) -> None:
        request_id = uuid.uuid4().hex
        body = orjson.dumps({"error": SENTENCE, "error_type": "invalid_input", "request_id": request_id})
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        log.info("refused", error_type="invalid_input", error=SENTENCE, request_id=request_id)

    def _await_head(self) -> None:
        self._forget_head()
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()

    def _give_up(self) -> None:
        if self._answering:  # the head of the next request may take as long as this answer
            self._await_head()
        else:
            self.transport.close()
