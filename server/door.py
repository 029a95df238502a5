"""The door: what cannot be answered is refused before the body is read, and by a full queue before the framework looks.

Under overload most requests end here, and what each of them costs is taken from those that were let in: the framework's
way to a refusal is long, and cold in the processor's caches, where tagging has just been. `Door` knows the path and two
parameters only. What it lets pass has its place among the requests; `check_door` in a route asks for that only where
`Door` did not.
"""

import math
import time
from urllib.parse import parse_qsl

import structlog
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from server.engine_errors import EngineError, QueueFullError
from server.errors import ROWS, error_body
from server.lane import Lane
from server.model_pool import ModelNotFoundError
from server.request_id import choose_request_id
from server.service import NotReadyError, Service

log = structlog.get_logger()
DOORS = {"/classify", "/embed"}  # whose model and deadline the query names


def check_door(request: Request, model_name: str | None, timeout_seconds: float | None = None) -> None:
    """Refuses, before the body is read, what cannot be answered: not ready, unknown model, full queue, no time.

    From here on the request counts among all; the middleware ends that for one that is never admitted.
    """
    service: Service = request.app.state.service
    service.check_ready()
    model = service.model(model_name)  # the one that the request keeps, whatever is served when its body has come
    if not request.scope.get("hark.let_in"):
        _take_place(request.scope, service, model.lane, timeout_seconds)


def _take_place(scope: Scope, service: Service, lane: Lane, timeout_seconds: float | None) -> None:
    """A deadline counts from the end of the upload, so it is looked at here only where the body is small."""
    timeout_seconds = timeout_seconds or service.settings.timeout_seconds
    deadline = time.monotonic() + timeout_seconds if timeout_seconds and _is_small(scope, service) else None
    service.engine.begin_reception(lane, scope["hark.place"], deadline)
    scope["hark.let_in"] = True


def _is_small(scope: Scope, service: Service) -> bool:
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return declared.isdigit() and int(declared) <= service.settings.spool_memory_bytes


class Door:
    """Stands before the framework, and answers what the queue refuses, as the routes would.

    Where callers have keys or quotas, requests traces, or models shares, there is more to look at first, and only the
    routes refuse.
    """

    def __init__(self, service: Service, traced: bool) -> None:
        self._service, settings = service, service.settings
        quotas = settings.quota_requests_per_minute or settings.quota_audio_seconds_per_minute
        self._is_open = bool(settings.api_keys or quotas or settings.traffic_split or traced)

    async def refuses(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Whether the request is refused; then it has been answered."""
        if self._is_open or scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in DOORS:
            return False
        if any(name == b"traceparent" for name, _ in scope["headers"]):
            return False
        started = time.perf_counter()
        scope["hark.request_id"], scope["hark.place"] = choose_request_id(scope), object()
        refusal = self._refusal(scope)
        if refusal is not None:
            await self._answer(refusal, scope, receive, send)
            self._record(refusal, scope, time.perf_counter() - started)
        return refusal is not None

    def _refusal(self, scope: Scope) -> QueueFullError | None:
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        try:
            timeout_seconds = float(query["timeout_seconds"]) if "timeout_seconds" in query else None
            if timeout_seconds is None or 0 < timeout_seconds < math.inf:
                self._service.check_ready()
                _take_place(scope, self._service, self._service.model(query.get("model")).lane, timeout_seconds)
        except QueueFullError as refusal:
            return refusal
        except (ValueError, NotReadyError, ModelNotFoundError, EngineError):
            pass  # the route says so, after all that it looks at before
        return None

    async def _answer(self, refusal: QueueFullError, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = scope["hark.request_id"]
        kind, seconds = ROWS[QueueFullError].error_type, refusal.retry_after_seconds
        answer = error_body(self._service.settings.overload_status, kind, str(refusal), request_id, seconds)
        answer.headers["X-Request-ID"] = request_id
        await answer(scope, receive, send)

    def _record(self, refusal: QueueFullError, scope: Scope, seconds: float) -> None:
        metrics, status, path = self._service.metrics, self._service.settings.overload_status, scope["path"]
        metrics.rejected.labels(refusal.reason).inc()
        metrics.requests.labels(path, str(status)).inc()
        metrics.request_seconds.labels(path).observe(seconds)
        log.info(
            "refused",
            request_id=scope["hark.request_id"],
            **{"method": "POST", "path": path, "status": status, "milliseconds": round(1000 * seconds, 1)},
            **{"error_type": ROWS[QueueFullError].error_type, "error": str(refusal)},
        )
