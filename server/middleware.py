"""Around every request: its id, its place in a trace, its log line, its metrics, and an answer even to a bug."""

import asyncio
import time

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import answer_error
from server.request_id import choose_request_id
from server.service import NotReadyError, Service
from server.trace_context import TraceContext, parse_traceparent
from server.tracing import RequestTrace, Tracing, current_trace

log = structlog.get_logger()
QUIET_ROUTES = {"/health", "/healthz", "/livez", "/ping", "/readyz", "/metrics"}  # asked every few seconds by machines


class RequestMiddleware:
    """Plain ASGI, so that bodies and disconnects reach the routes untouched."""

    def __init__(self, app: ASGIApp, service: Service, tracing: Tracing | None = None) -> None:
        self._app = app
        self._service = service
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        span = self._start_span(scope)
        context = span.context if span else _child_of(parse_traceparent(scope["headers"]))
        names = {"trace_id": context.trace_id, "span_id": context.span_id} if context else {}
        token = current_trace.set(span)
        try:
            with structlog.contextvars.bound_contextvars(**names):
                if scope["type"] == "websocket":  # routes/stream.py keeps its own account
                    await self._app(scope, receive, send)
                else:
                    await self._answer(scope, receive, send, context)
        finally:
            current_trace.reset(token)

    def _start_span(self, scope: Scope) -> RequestTrace | None:
        wanted = self._tracing is not None and scope["type"] == "http" and scope["path"] not in QUIET_ROUTES
        return self._tracing.start(parse_traceparent(scope["headers"])) if wanted and self._tracing else None

    async def _answer(self, scope: Scope, receive: Receive, send: Send, context: TraceContext | None) -> None:
        scope = {**scope, "hark.request_id": choose_request_id(scope["headers"]), "hark.place": object()}
        request_id: str = scope["hark.request_id"]
        ids = [(b"x-request-id", request_id.encode())]
        if context is not None:
            ids.append((b"traceparent", context.header))
        if scope["method"] == "HEAD":
            scope["method"] = "GET"  # the same answer; the server sends it without its body
        status = 0

        async def send_with_ids(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), *ids]
            await send(message)

        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id), self._service.request():
            try:
                await self._app(scope, receive, send_with_ids)
            except asyncio.CancelledError:  # the drain has ended
                if status:
                    log.warning("answer cut off by the end of the drain")
                else:
                    error = NotReadyError("the server stopped before the request was answered")
                    await answer_error(error, Request(scope))(scope, receive, send_with_ids)
                raise
            except Exception as error:
                if status:  # half an answer is out: all that is left is to break the connection
                    log.exception("answer broken off")
                    raise
                await answer_error(error, Request(scope))(scope, receive, send_with_ids)
            finally:
                self._service.engine.end_reception(scope["hark.place"])
                self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = route_of(scope)
        code = status or 499
        self._service.metrics.requests.labels(route, str(code)).inc()
        self._service.metrics.request_seconds.labels(route).observe(seconds)
        if span := current_trace.get():
            span.end(f"{scope['method']} {route}", span_attributes(scope, route, code), failed=code >= 500)
        say = log.debug if route in QUIET_ROUTES else log.info
        say("request", method=scope["method"], path=scope["path"], status=code, milliseconds=round(1000 * seconds, 1))


def _child_of(parent: TraceContext | None) -> TraceContext | None:
    """Without spans of our own the caller's trace is passed on all the same."""
    return parent.child() if parent else None


def span_attributes(scope: Scope, route: str, code: int) -> dict[str, str | int]:
    """A request's span as OpenTelemetry's conventions name things."""
    return {
        "http.request.method": scope["method"],
        "http.route": route,
        "url.path": scope["path"],
        "http.response.status_code": code,
        "hark.request_id": scope["hark.request_id"],
    }


def route_of(scope: Scope) -> str:
    """The matched route's path for the metrics; those that are not our own handlers leave no route behind."""
    if "route" in scope:
        return scope["route"].path_format
    if scope["path"].startswith("/page/"):
        return "/page/*"
    return "/openapi.json" if scope["path"] == "/openapi.json" else "unmatched"
