"""Turns every exception into the one error body; the only place that knows both the domain's errors and HTTP.

A 4xx sentence is the exception's own and says what to change; a 5xx of ours reveals nothing, and the log has the
traceback under the same request id.
"""

import math
from dataclasses import dataclass

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Match, Mount

from model.audio import AudioError, AudioTooLongError, BrokenAudioError, NotAudioError
from model.checkpoint import CheckpointError
from model.own_classes import ClassNameError, ClassNameTakenError
from model.registry import UnknownModelError
from model.teaching import TeachingError
from server.auth import ForbiddenError, UnauthorizedError
from server.disconnect import ClientLeftError
from server.engine_errors import (
    DeadlineError,
    EngineClosedError,
    EngineError,
    InferenceFailedError,
    QueueFullError,
    WorkerStuckError,
)
from server.live_errors import FrameTooLargeError, StreamError, StreamOverrunError
from server.model_pool import DefaultModelError, ModelLoadError, ModelNotFoundError
from server.own_classes import (
    ClassNotFoundError,
    NotStoredError,
    OwnClassError,
    TooFewClipsError,
    TooManyClassesError,
)
from server.parameters import InvalidParameterError, describe_problems
from server.quota import RateLimitedError
from server.runtimes.base import DeviceLostError, DeviceOutOfMemoryError, ProcessEndedError
from server.schemas import JsonAnswer
from server.served_models import ServingError
from server.service import NotReadyError, Service
from server.tagging import TooManyWindowsError
from server.uploads import (
    BadMultipartError,
    EmptyUploadError,
    UploadError,
    UploadStalledError,
    UploadTooLargeError,
)
from server.window_reader import TooManyChannelsError

log = structlog.get_logger()


@dataclass(frozen=True)
class Row:
    """How one exception is answered; `sentence` replaces the exception's own, `rejected` is the metric's reason."""

    status: int
    error_type: str
    sentence: str | None = None
    rejected: str | None = None


NOT_STORED = "the server's disk refused to store or delete this; its log has the details under this request id"
INTERNAL = Row(500, "internal_error", "an internal error; the server's log has the details under this request id")

ROWS: dict[type[Exception], Row] = {
    UploadTooLargeError: Row(413, "audio_too_large", rejected="size"),
    AudioTooLongError: Row(413, "audio_too_large", rejected="size"),
    NotAudioError: Row(415, "audio_not_decodable"),
    AudioError: Row(422, "invalid_input"),
    BrokenAudioError: Row(422, "invalid_input"),
    UploadError: Row(422, "invalid_input"),
    EmptyUploadError: Row(422, "invalid_input"),
    UploadStalledError: Row(422, "invalid_input"),
    BadMultipartError: Row(422, "invalid_input"),
    InvalidParameterError: Row(422, "invalid_input"),
    TooManyWindowsError: Row(422, "invalid_input"),
    TooManyChannelsError: Row(422, "invalid_input"),
    StreamError: Row(422, "invalid_input"),
    FrameTooLargeError: Row(413, "audio_too_large", rejected="size"),
    StreamOverrunError: Row(503, "overloaded"),
    ModelNotFoundError: Row(404, "model_not_found"),
    UnknownModelError: Row(404, "model_not_found"),
    ModelLoadError: Row(422, "invalid_input"),
    DefaultModelError: Row(409, "conflict"),
    ClassNameError: Row(422, "invalid_input"),
    ClassNameTakenError: Row(409, "conflict"),
    TeachingError: Row(422, "invalid_input"),
    TooFewClipsError: Row(422, "invalid_input"),
    TooManyClassesError: Row(409, "conflict"),
    ClassNotFoundError: Row(404, "class_not_found"),
    OwnClassError: INTERNAL,
    NotStoredError: Row(507, "not_stored", NOT_STORED),
    UnauthorizedError: Row(401, "unauthorized"),
    ForbiddenError: Row(403, "forbidden"),
    RateLimitedError: Row(429, "rate_limited", rejected="quota"),
    QueueFullError: Row(503, "overloaded"),
    NotReadyError: Row(503, "not_ready", rejected="draining"),
    EngineClosedError: Row(503, "not_ready", rejected="draining"),
    WorkerStuckError: Row(503, "not_ready", "the server does not advance; send the request to another replica"),
    DeadlineError: Row(504, "timeout"),
    InferenceFailedError: Row(
        500,
        "inference_failed",
        "the model failed on this input; the server's log has the details under this request id",
    ),
    ClientLeftError: Row(499, "client_left", "the caller closed the connection before the answer"),
    ClientDisconnect: Row(499, "client_left", "the caller closed the connection before the answer"),
    EngineError: INTERNAL,
    DeviceOutOfMemoryError: INTERNAL,
    DeviceLostError: INTERNAL,
    ProcessEndedError: INTERNAL,
    CheckpointError: INTERNAL,
    ServingError: INTERNAL,
}


def row_of(error: Exception) -> Row:
    """The row of the exception's nearest named ancestor; a bug has the last row."""
    return next((ROWS[kind] for kind in type(error).__mro__ if kind in ROWS), INTERNAL)


def answer_error(error: Exception, request: Request) -> JsonAnswer:
    """The answer to a request that ended in this exception, counted and, for a failure of ours, logged."""
    service: Service = request.app.state.service
    request_id: str = request.scope.get("hark.request_id", "")
    if isinstance(error, HTTPException):
        return _answer_http(error, request, request_id)
    if isinstance(error, RequestValidationError):
        return error_body(422, "invalid_input", describe_problems(error.errors()), request_id)
    row = row_of(error)
    status = service.settings.overload_status if isinstance(error, QueueFullError) else row.status
    _count(error, row, request)
    if row.status >= 500 and row.sentence is not None:  # ours, and not for callers
        log.error(row.error_type, exc_info=error)
    else:
        log.info("refused", error_type=row.error_type, error=str(error))
    retry_after = getattr(error, "retry_after_seconds", None if status not in (429, 503) else 1.0)
    answer = error_body(status, row.error_type, row.sentence or str(error), request_id, retry_after)
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def install_error_handlers(app: FastAPI) -> None:
    """Answers the domain's and the framework's errors alike."""

    async def handle(request: Request, error: Exception) -> JsonAnswer:
        return answer_error(error, request)

    for kind in (*ROWS, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, handle)


def _answer_http(error: HTTPException, request: Request, request_id: str) -> JsonAnswer:
    if error.status_code == 404:
        sentence = f"there is no {request.method} {request.url.path} here; /docs lists what there is"
        return error_body(404, "not_found", sentence, request_id)
    if error.status_code == 405:
        allowed = _allowed_methods(request)
        answer = error_body(405, "method_not_allowed", f"{request.url.path} answers {allowed} only", request_id)
        answer.headers["Allow"] = allowed
        return answer
    kind = "internal_error" if error.status_code >= 500 else "invalid_input"
    return error_body(error.status_code, kind, str(error.detail), request_id)


def _allowed_methods(request: Request) -> str:
    """The methods of every route with this path; the framework names those of the first one only."""
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]
    allowed = [
        method
        for method in ("DELETE", "GET", "PATCH", "POST", "PUT")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return ", ".join(allowed) or "GET"  # what is mounted, the page's files, can only be got


def error_body(
    status: int, error_type: str, sentence: str, request_id: str, retry_after_seconds: float | None = None
) -> JsonAnswer:
    """The one body of every error, and `Retry-After` where there are seconds to wait."""
    content: dict[str, object] = {"error": sentence, "error_type": error_type, "request_id": request_id}
    headers: dict[str, str] = {}
    if retry_after_seconds is not None:
        content["retry_after_seconds"] = max(1, math.ceil(retry_after_seconds))
        headers["Retry-After"] = str(content["retry_after_seconds"])
    return JsonAnswer(content, status, headers)


def _count(error: Exception, row: Row, request: Request) -> None:
    service: Service = request.app.state.service
    metrics = service.metrics
    reason = error.reason if isinstance(error, QueueFullError) else row.rejected
    if reason == "draining" and not (service.state == "draining" and request.method == "POST"):
        reason = None  # a probe, or a request that came too early
    if reason is not None:
        metrics.rejected.labels(reason).inc()
    if row.status == 499:
        metrics.cancelled.inc()
