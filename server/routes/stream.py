"""`WS /stream`: sound goes in as it happens, tags and events come back while it does."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import orjson
import structlog
from fastapi import APIRouter
from starlette.requests import HTTPConnection, Request
from starlette.websockets import WebSocket

from server.auth import require_api_key
from server.disconnect import ClientLeftError
from server.errors import answer_error
from server.flow import choose_grid
from server.live_errors import StreamIdleError, WrongMessageError
from server.live_stream import LiveStream, send_message
from server.parameters import InvalidParameterError, parse_parameters
from server.request_id import choose_request_id
from server.schemas import StreamStart
from server.service import Service

router = APIRouter()

START_SECONDS = 10.0  # how long the first message may take
HOP_SECONDS = 1.0  # where the client does not choose: a second's delay is live, and costs little
EXAMPLE = '{"sample_rate": 16000, "encoding": "s16le"}'
CLOSE_CODES = {401: 1008, 403: 1008, 404: 1008, 413: 1009, 415: 1003, 422: 1007, 429: 1013, 503: 1013, 504: 1013}
SHUTTING_DOWN, OUR_FAILURE = 1012, 1011


@router.websocket("/stream")
async def stream(websocket: WebSocket) -> None:
    """A live stream, from its handshake to its close."""
    service: Service = websocket.app.state.service
    request_id = websocket.scope.setdefault("hark.request_id", choose_request_id(websocket.scope["headers"]))
    started = time.perf_counter()
    with structlog.contextvars.bound_contextvars(request_id=request_id), service.request():
        status = await _answer(service, websocket)
    service.metrics.requests.labels("/stream", str(status)).inc()
    service.metrics.request_seconds.labels("/stream").observe(time.perf_counter() - started)


async def _answer(service: Service, websocket: WebSocket) -> int:
    """Runs the stream and closes it; gives the status that a request would have got."""
    await websocket.accept()
    try:
        live = await _open(service, websocket)
        await live.run()
    except ClientLeftError as error:
        return answer_error(error, _as_request(websocket)).status_code
    except Exception as error:
        return await _refuse(service, websocket, error)
    code = SHUTTING_DOWN if live.cut_short else 1000
    await _close(websocket, code, "the server is shutting down; connect again" if live.cut_short else "")
    return 200


async def _open(service: Service, websocket: WebSocket) -> LiveStream:
    """Reads the first message, and checks everything that can be checked before the sound.

    Raises: what `server/errors.py` has a row for.
    """
    service.check_ready()
    start = _parse(await _receive_start(websocket))
    await require_api_key(_with_key(websocket, start.api_key))
    model = service.model(start.model)
    service.engine.check_room(model.lane)
    hop_seconds = start.hop_seconds or min(HOP_SECONDS, start.window_seconds or model.checkpoint.config.window_seconds)
    return LiveStream(service, websocket, model, start, choose_grid(model, start.window_seconds, hop_seconds))


async def _receive_start(websocket: WebSocket) -> str:
    try:
        async with asyncio.timeout(START_SECONDS):
            message = await websocket.receive()
    except TimeoutError as error:
        raise StreamIdleError(f"no first message came within {START_SECONDS:g} seconds") from error
    if message["type"] == "websocket.disconnect":
        raise ClientLeftError("the client closed the stream before its first message")
    text = message.get("text")
    if text is None:
        raise WrongMessageError(f"the first message must be text: {EXAMPLE}")
    return str(text)


def _parse(text: str) -> StreamStart:
    try:
        values = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidParameterError(f"the first message must be JSON: {error}") from error
    if not isinstance(values, dict):
        raise InvalidParameterError(f"the first message must be a JSON object: {EXAMPLE}")
    return parse_parameters(StreamStart, values)


def _with_key(websocket: WebSocket, key: str | None) -> HTTPConnection:
    """The connection as if the message's key had come as a header; a header that did come counts first."""
    given = [(b"x-api-key", key.encode())] if key else []
    return HTTPConnection({**websocket.scope, "headers": [*websocket.scope["headers"], *given]})


def _as_request(websocket: WebSocket) -> Request:
    """The connection as the request that the error table answers."""
    return Request({**websocket.scope, "type": "http", "method": "POST"})


async def _refuse(service: Service, websocket: WebSocket, error: Exception) -> int:
    """Says what is wrong with the one error body, then closes with the code for it."""
    answer = answer_error(error, _as_request(websocket))
    message: dict[str, Any] = {"type": "error", **orjson.loads(answer.body)}
    code = getattr(error, "close_code", None) or CLOSE_CODES.get(answer.status_code, OUR_FAILURE)
    if answer.status_code == 503 and service.state == "draining":
        code = SHUTTING_DOWN
    with suppress(ClientLeftError):
        await send_message(websocket, message, service.settings.stream_idle_seconds)
    await _close(websocket, code, message["error"])
    return answer.status_code


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    with suppress(RuntimeError, OSError):
        await websocket.close(code, _short(reason))


def _short(reason: str) -> str:
    """A close frame holds at most 123 bytes of reason."""
    return reason.encode()[:120].decode(errors="ignore")
