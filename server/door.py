"""The door: what cannot be answered is refused before the body is read, and by a full queue before the framework looks.

Under overload most requests end here, and what each of them costs is taken from those that were let in: the framework's
way to a refusal is long, and cold in the processor's caches, where tagging has just been. `Door` knows the path and two
parameters only, and holds nothing: what it lets pass asks again in its route, where `check_door` gives it a place.
"""

import math
import time
from collections.abc import Iterable
from functools import cache
from urllib.parse import parse_qsl

import structlog
from prometheus_client import Counter, Histogram
from starlette.requests import Request

from server.engine_errors import EngineError, QueueFullError
from server.errors import ROWS, error_body
from server.fair_queue import Priority
from server.model_pool import ModelNotFoundError
from server.request_id import choose_request_id
from server.schemas import JsonAnswer
from server.service import NotReadyError, Service
from server.settings import Settings
from server.uploads import declared_bytes

log = structlog.get_logger()
Headers = Iterable[tuple[bytes, bytes]]
DOORS = {b"/classify": "/classify", b"/embed": "/embed"}  # whose model and deadline the query names


def check_door(
    request: Request,
    model_name: str | None,
    timeout_seconds: float | None = None,
    priority: Priority = "interactive",
) -> None:
    """Refuses, before the body is read, what cannot be answered: not ready, unknown model, full queue, no time.

    From here on the request counts among all; the middleware ends that for one that is never admitted.
    """
    service: Service = request.app.state.service
    service.check_ready()
    model = service.model(model_name)  # the one that the request keeps, whatever is served when its body has come
    deadline = _deadline(request.scope["headers"], service.settings, timeout_seconds)
    service.engine.begin_reception(model.lane, request.scope["hark.place"], deadline, priority)


def _deadline(headers: Headers, settings: Settings, timeout_seconds: float | None) -> float | None:
    """A deadline counts from the end of the upload, so it is looked at here only where the body is small."""
    timeout_seconds = timeout_seconds or settings.timeout_seconds
    declared = declared_bytes(headers)
    is_small = declared is not None and declared <= settings.spool_memory_bytes
    return time.monotonic() + timeout_seconds if timeout_seconds and is_small else None


class Door:
    """Asked when a request's head has come, before the framework: answers what the queue refuses, as the routes would.

    Where callers have keys or quotas, requests traces, or models shares, there is more to look at first, and only the
    routes refuse.
    """

    def __init__(self, service: Service, traced: bool) -> None:
        self._service, settings = service, service.settings
        quotas = settings.quota_requests_per_minute or settings.quota_audio_seconds_per_minute
        self._leaves_it_to_routes = bool(settings.api_keys or quotas or settings.traffic_split or traced)
        self._log = log.bind()  # once: one that is not bound is built anew for every line, even for one not wanted
        self._counts = cache(self._find_counts)

    def refusal(self, method: bytes, target: bytes, headers: Headers) -> JsonAnswer | None:
        """The answer to a request that is refused; names of headers in lower case."""
        path, _, query = target.partition(b"?")
        if self._leaves_it_to_routes or method != b"POST" or path not in DOORS:
            return None
        if any(name == b"traceparent" for name, _ in headers):
            return None
        started, service = time.perf_counter(), self._service
        try:
            model_name, timeout_seconds = _asked(query)
            service.check_ready()
            deadline = _deadline(headers, service.settings, timeout_seconds)
            service.engine.check_room(service.pool.choose(model_name).lane, deadline)
        except QueueFullError as error:
            request_id = choose_request_id(headers)
            self._record(error, DOORS[path], request_id, started)
            return self._answer(error, request_id)
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
            method="POST",
            path=path,
            status=status,
            milliseconds=round(1000 * seconds, 1),
            error_type=ROWS[QueueFullError].error_type,
            error=str(error),
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
    named = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    timeout_seconds = float(named["timeout_seconds"]) if "timeout_seconds" in named else None
    if timeout_seconds is not None and not 0 < timeout_seconds < math.inf:
        raise ValueError(timeout_seconds)
    return named.get("model"), timeout_seconds
