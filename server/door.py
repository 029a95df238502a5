"""The door: what cannot be answered is refused before the body is read, and by a full queue before the framework looks.

Under overload most requests end here, and what each of them costs is taken from those that were let in. `Door` looks at
the path and two parameters only. What it lets pass has its place among the requests; `check_door` in a route asks for
that only where `Door` did not.
"""

import math
import time
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from server.auth import UnauthorizedError, require_api_key
from server.engine_errors import EngineError
from server.errors import answer_error
from server.model_pool import ModelNotFoundError
from server.quota import RateLimitedError
from server.service import NotReadyError, Service

DOORS = {"/classify", "/embed"}  # whose model and deadline the query names


def check_door(request: Request, model_name: str | None, timeout_seconds: float | None = None) -> None:
    """Refuses, before the body is read, what cannot be answered: not ready, unknown model, full queue, no time.

    A deadline counts from the end of the upload, so it is looked at here only where the body is small.
    From here on the request counts among all; the middleware ends that for one that is never admitted.
    """
    if request.scope.get("hark.let_in"):
        return
    service: Service = request.app.state.service
    service.check_ready()
    timeout_seconds = timeout_seconds or service.settings.timeout_seconds
    deadline = time.monotonic() + timeout_seconds if timeout_seconds and _is_small(request, service) else None
    service.engine.begin_reception(service.model(model_name).lane, request.scope["hark.place"], deadline)
    request.scope["hark.let_in"] = True


def _is_small(request: Request, service: Service) -> bool:
    declared = request.headers.get("content-length", "")
    return declared.isdecimal() and int(declared) <= service.settings.spool_memory_bytes


class Door:
    """Plain ASGI around the framework: answers what the engine refuses, and leaves all other answers to the route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._app
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in DOORS:
            request = Request(scope, receive)
            if refusal := await _refusal(request):
                answer = answer_error(refusal, request)
        await answer(scope, receive, send)


async def _refusal(request: Request) -> Exception | None:
    """Why this request is not let in, where the engine, the caller's key or the caller's quota says so."""
    query = dict(parse_qsl(request.scope["query_string"].decode("latin-1")))
    try:
        timeout_seconds = float(query["timeout_seconds"]) if "timeout_seconds" in query else None
        if timeout_seconds is None or 0 < timeout_seconds < math.inf:
            check_door(request, query.get("model"), timeout_seconds)
    except EngineError as refusal:
        try:
            await require_api_key(request)
        except (UnauthorizedError, RateLimitedError) as earlier:  # as a route would have it
            return earlier
        return refusal
    except (ValueError, NotReadyError, ModelNotFoundError):
        pass  # the route says so, after all that it looks at before
    return None
