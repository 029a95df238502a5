"""The door: what cannot be answered is refused before the body is read, and by a full queue before the framework looks.

Under overload most requests end here, and what each of them costs is taken from those that were let in: the framework's
way to a refusal is long, and cold in the processor's caches, where tagging has just been. `Door` knows the path and two
parameters only. What it lets pass has its place among the requests; `check_door` in a route asks for that only where
`Door` did not.
"""

import math
import time
from functools import cache
from urllib.parse import parse_qsl

import structlog
from prometheus_client import Counter, Histogram
from starlette.requests import Request
from starlette.types import Scope

from server.engine_errors import EngineError, QueueFullError
from server.errors import ROWS, error_body
from server.lane import Lane
from server.model_pool import ModelNotFoundError
from server.request_id import choose_request_id
from server.schemas import JsonAnswer
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
    """Asked when a request's head has come, before the framework: answers what the queue refuses, as the routes would.

    Where callers have keys or quotas, requests traces, or models shares, there is more to look at first, and only the
    routes refuse.
    """

    def __init__(self, service: Service, traced: bool) -> None:
        self._service, settings = service, service.settings
        quotas = settings.quota_requests_per_minute or settings.quota_audio_seconds_per_minute
        self._is_open = bool(settings.api_keys or quotas or settings.traffic_split or traced)
        self._log = log.bind()  # once: one that is not bound is built anew for every line, even for one not wanted
        self._counts = cache(self._find_counts)

    def refusal(self, scope: Scope) -> JsonAnswer | None:
        """The answer to a request that is refused; one that is let in has its place in the scope."""
        path = scope["path"]
        if self._is_open or scope["method"] != "POST" or path not in DOORS:
            return None
        if any(name == b"traceparent" for name, _ in scope["headers"]):
            return None
        started = time.perf_counter()
        scope["hark.request_id"], scope["hark.place"] = choose_request_id(scope), object()
        try:
            model_name, timeout_seconds = _asked(scope["query_string"])
            self._service.check_ready()
            model = self._service.pool.choose(model_name, scope["hark.request_id"])
            _take_place(scope, self._service, model.lane, timeout_seconds)
        except QueueFullError as error:
            self._record(error, path, scope["hark.request_id"], started)
            return self._answer(error, scope["hark.request_id"])
        except (ValueError, NotReadyError, ModelNotFoundError, EngineError):
            pass  # the route says so, after all that it looks at before
        return None

    def _answer(self, error: QueueFullError, request_id: str) -> JsonAnswer:
        kind, seconds = ROWS[QueueFullError].error_type, error.retry_after_seconds
        answer = error_body(self._service.settings.overload_status, kind, str(error), request_id, seconds)
        answer.raw_headers.append((b"x-request-id", request_id.encode()))
        return answer

    def _record(self, error: QueueFullError, path: str, request_id: str, started: float) -> None:
        seconds, status = time.perf_counter() - started, self._service.settings.overload_status
        rejected, requests, request_seconds = self._counts(error.reason, path)
        rejected.inc()
        requests.inc()
        request_seconds.observe(seconds)
        self._log.info(
            "refused",
            request_id=request_id,
            **{"method": "POST", "path": path, "status": status, "milliseconds": round(1000 * seconds, 1)},
            **{"error_type": ROWS[QueueFullError].error_type, "error": str(error)},
        )

    def _find_counts(self, reason: str, path: str) -> tuple[Counter, Counter, Histogram]:
        metrics, status = self._service.metrics, str(self._service.settings.overload_status)
        return (
            metrics.rejected.labels(reason),
            metrics.requests.labels(path, status),
            metrics.request_seconds.labels(path),
        )


def _asked(query: bytes) -> tuple[str | None, float | None]:
    """The model and the deadline that a query names. Raises: ValueError for a deadline that is none."""
    named = dict(parse_qsl(query.decode("latin-1")))
    timeout_seconds = float(named["timeout_seconds"]) if "timeout_seconds" in named else None
    if timeout_seconds is not None and not 0 < timeout_seconds < math.inf:
        raise ValueError(timeout_seconds)
    return named.get("model"), timeout_seconds
