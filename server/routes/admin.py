"""`PUT` and `DELETE /models/{name}`: what is served, changed while serving; for callers with an admin key."""

import re
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.flow import service_of
from server.json_body import read_json
from server.model_pool import ModelLoadError
from server.parameters import InvalidParameterError, parse_parameters
from server.routes.catalogue import describe_model
from server.schemas import JsonAnswer, ModelAnswer, ModelRequest, RepositoryRequest
from server.service import Service
from server.uploads import UploadLimits, receive_bytes

router = APIRouter()

MAX_BODY_BYTES = 64 * 1024
SANE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # it stands in paths, metrics and log lines
BODY: dict[str, Any] = {
    "required": True,
    "content": {"application/json": {"schema": ModelRequest.model_json_schema()}},
}


@router.put(
    "/models/{name}",
    responses={200: {"model": ModelAnswer}, 201: {"model": ModelAnswer, "description": "The name is new."}},
    openapi_extra={"requestBody": BODY},
)
async def put_model(request: Request, name: str) -> Response:
    """Load a checkpoint and serve it under this name, or only make a served model the default; needs an admin key.

    Traffic goes on: a model that had the name answers until the new one has passed its golden clip, and finishes what
    it has accepted. Where loading fails, nothing changes.
    """
    service = service_of(request)
    wanted = parse_parameters(ModelRequest, read_json(await _receive(request)))
    created = await serve_model(service, name, wanted)
    answer = describe_model(service.models[name], service.pool)
    return JsonAnswer(answer, 201 if created else 200)


@router.delete("/models/{name}", status_code=204, response_class=Response)
async def delete_model(request: Request, name: str) -> Response:
    """Serve a model no longer; what it has accepted is answered. The default cannot be deleted. Needs an admin key."""
    service = service_of(request)
    service.check_ready()
    service.pool.delete(name)
    return Response(status_code=204)


@router.post("/v2/repository/models/{name}/load")
async def load_model(request: Request, name: str) -> Response:
    """Load the checkpoint of this name, as Triton's clients ask for it; needs an admin key."""
    body = await _receive(request)
    given = parse_parameters(RepositoryRequest, read_json(body) if body else {})
    if given.parameters:
        raise InvalidParameterError("models are loaded from this server's folders only: send no parameters")
    await serve_model(service_of(request), name, ModelRequest(source=name))
    return JsonAnswer({})


@router.post("/v2/repository/models/{name}/unload")
async def unload_model(request: Request, name: str) -> Response:
    """Serve a model no longer, as Triton's clients ask for it; needs an admin key."""
    await delete_model(request, name)
    return JsonAnswer({})


async def serve_model(service: Service, name: str, wanted: ModelRequest) -> bool:
    """Does what a `PUT` asks for; True where the name is new.

    Raises: ModelLoadError, ModelNotFoundError, NotReadyError.
    """
    service.check_ready()
    if wanted.source is not None:
        if not SANE_NAME.fullmatch(name):
            raise ModelLoadError(
                "a model's name is at most 64 letters, digits, '.', '_' and '-', the first a letter or digit"
            )
        return await service.put_model(name, wanted.source, wanted.make_default)
    if not wanted.make_default:
        service.pool.choose(name)
        raise ModelLoadError("nothing to do: send a source to load, or make_default")
    service.pool.make_default(name)
    return False


async def _receive(request: Request) -> bytes:
    idle_seconds = service_of(request).settings.upload_idle_seconds
    return await receive_bytes(request, UploadLimits(MAX_BODY_BYTES, MAX_BODY_BYTES, idle_seconds))
