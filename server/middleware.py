"""Around every request: its id, its log line, its metrics, and an answer even to a bug."""

import asyncio
import re
import time
import uuid

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import answer_error
from server.service import NotReadyError, Service

log = structlog.get_logger()
SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")  # nothing that could forge a log line or a header
QUIET_ROUTES = {"/health", "/healthz", "/livez", "/ping", "/readyz", "/metrics"}  # asked every few seconds by machines


class RequestMiddleware:
    """Plain ASGI, so that bodies and disconnects reach the routes untouched."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = choose_request_id(scope)
        scope = {**scope, "hark.request_id": request_id}
        if scope["method"] == "HEAD":
            scope["method"] = "GET"  # the same answer; the server sends it without its body
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", request_id.encode())]
            await send(message)

        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id), self._service.request():
            try:
                await self._app(scope, receive, send_with_id)
            except asyncio.CancelledError:  # the drain has ended
                if not status:
                    error = NotReadyError("the server stopped before the request was answered")
                    await answer_error(error, Request(scope))(scope, receive, send_with_id)
                raise
            except Exception as error:
                if status:  # half an answer is out: all that is left is to break the connection
                    log.exception("answer broken off")
                    raise
                await answer_error(error, Request(scope))(scope, receive, send_with_id)
            finally:
                self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        code = status or 499
        self._service.metrics.requests.labels(route, str(code)).inc()
        self._service.metrics.request_seconds.labels(route).observe(seconds)
        say = log.debug if route in QUIET_ROUTES else log.info
        say("request", method=scope["method"], path=scope["path"], status=code, milliseconds=round(1000 * seconds, 1))


def route_of(scope: Scope) -> str:
    """The matched route's path for the metrics; those that are not our own handlers leave no route behind."""
    if "route" in scope:
        return scope["route"].path_format
    if scope["path"].startswith("/page/"):
        return "/page/*"
    return "/openapi.json" if scope["path"] == "/openapi.json" else "unmatched"


def choose_request_id(scope: Scope) -> str:
    """The caller's X-Request-ID where it is sane, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and SANE_ID.fullmatch(value):
            return value.decode()
    return uuid.uuid4().hex
