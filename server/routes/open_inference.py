"""`/v2`: the Open Inference Protocol of KServe, Triton and MLServer, for their clients as they are.

Its extensions are Triton's: binary tensors, classification, statistics, the model's configuration and repository.
"""

import time
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.checkpoint import Checkpoint
from server.content_encoding import expand
from server.door import check_door
from server.flow import open_tagger, service_of, upload_limits
from server.model_pool import ModelNotFoundError
from server.oip_answer import VERSION, answer_question
from server.oip_question import Question, describe_tensors, read_question
from server.oip_tensors import parse_request
from server.routes.classify import server_timing
from server.schemas import JsonAnswer, TagQuery
from server.served_models import ServedModel
from server.service import Service
from server.sounds import HeardSound, hear_sounds, longest_times, stage_seconds
from server.uploads import UploadLimits, receive_bytes
from server.version import VERSION as SERVER_VERSION

router = APIRouter(prefix="/v2")

EXTENSIONS = ["binary_tensor_data", "classification", "statistics", "model_configuration", "model_repository"]
MODEL, MODEL_VERSION = "/models/{model}", "/models/{model}/versions/{version}"
JSON_LENGTH = "Inference-Header-Content-Length"
TENSORS = {"type": "array", "items": {"type": "object"}}
INFER_JSON = {
    "type": "object",
    "required": ["inputs"],
    "properties": {"id": {"type": "string"}, "parameters": {"type": "object"}, "inputs": TENSORS, "outputs": TENSORS},
}
INFER: dict[str, Any] = {
    "openapi_extra": {
        "parameters": [
            {
                "name": JSON_LENGTH,
                "in": "header",
                "required": False,
                "schema": {"type": "integer"},
                "description": "Bytes of the JSON at the body's beginning, where tensors' bytes follow it.",
            }
        ],
        "requestBody": {
            "required": True,
            "description": "Input `audio` BYTES [n] (files, in JSON as base64), or `waveform` FP32 [n, samples] with"
            " the parameter `sampling_rate`. Outputs: `scores` FP32 [n, classes], `labels` and `mids` BYTES [classes],"
            " `embeddings` FP32 [n, width].",
            "content": {
                "application/json": {"schema": INFER_JSON},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
    }
}


@router.get("")
async def server_metadata() -> Response:
    """The server's name, version and extensions."""
    return JsonAnswer({"name": "hark", "version": SERVER_VERSION, "extensions": EXTENSIONS})


@router.get("/models/stats")
async def all_statistics(request: Request) -> Response:
    """Every model's statistics, as Triton reports them."""
    service = service_of(request)
    service.check_ready()
    return JsonAnswer({"model_stats": [_statistics(service, name) for name in service.models]})


@router.get(f"{MODEL}/stats", operation_id="statistics")
@router.get(f"{MODEL_VERSION}/stats", operation_id="statistics_of_version")
async def statistics(request: Request, model: str, version: str = VERSION) -> Response:
    """A model's statistics, as Triton reports them."""
    found = find_model(request, model, version)
    return JsonAnswer({"model_stats": [_statistics(service_of(request), found.name)]})


@router.get(MODEL, operation_id="model_metadata")
@router.get(MODEL_VERSION, operation_id="model_metadata_of_version")
async def model_metadata(request: Request, model: str, version: str = VERSION) -> Response:
    """A model's inputs and outputs."""
    found = find_model(request, model, version)
    head = {"name": found.name, "versions": [VERSION], "platform": f"hark_{found.info.runtime}"}
    return JsonAnswer({**head, **describe_tensors(_classes(request, found))})


@router.get(f"{MODEL}/config", operation_id="model_configuration")
@router.get(f"{MODEL_VERSION}/config", operation_id="model_configuration_of_version")
async def model_configuration(request: Request, model: str, version: str = VERSION) -> Response:
    """The part of Triton's model configuration that its tools read."""
    found = find_model(request, model, version)
    tensors = describe_tensors(_classes(request, found))
    types = {"FP32": "TYPE_FP32", "BYTES": "TYPE_STRING"}

    def describe(tensor: dict[str, Any]) -> dict[str, Any]:
        return {"name": tensor["name"], "data_type": types[tensor["datatype"]], "dims": tensor["shape"]}

    config = {
        "name": found.name,
        "platform": f"hark_{found.info.runtime}",
        "backend": "hark",
        "max_batch_size": 0,  # the first dimension counts sounds, and stands in the shapes
        "input": [{**describe(tensor), "optional": True} for tensor in tensors["inputs"]],
        "output": [describe(tensor) for tensor in tensors["outputs"]],
    }
    return JsonAnswer(config)


@router.get(f"{MODEL}/ready", operation_id="model_ready")
@router.get(f"{MODEL_VERSION}/ready", operation_id="model_ready_of_version")
async def model_ready(request: Request, model: str, version: str = VERSION) -> Response:
    """The model tags; 404 where it is not served, 503 while starting or draining."""
    return JsonAnswer({"name": find_model(request, model, version).name, "ready": True})


@router.post("/repository/index")
async def repository_index(request: Request) -> Response:
    """The models served, as Triton lists its repository."""
    service = service_of(request)
    service.check_ready()
    ready = [{"name": name, "version": VERSION, "state": "READY", "reason": ""} for name in service.models]
    states = {"loading": "LOADING", "failed": "UNAVAILABLE", "retiring": "UNLOADING"}
    changing = [
        {"name": change.name, "version": VERSION, "state": states[change.state], "reason": change.error}
        for change in service.pool.changes
        if change.name not in service.models
    ]
    return JsonAnswer([*ready, *changing])


@router.post(f"{MODEL}/infer", operation_id="infer", **INFER)
@router.post(f"{MODEL_VERSION}/infer", operation_id="infer_with_version", **INFER)
async def infer(request: Request, model: str, version: str = VERSION) -> Response:
    """Tag sounds sent as tensors."""
    served = find_model(request, model, version)
    service, started = service_of(request), time.perf_counter()
    check_door(request, served.name)
    try:
        question = await _receive(request, served)
        checkpoint, sounds = await _hear(request, served.name, question)
        heard = time.perf_counter()
        accepted = request.headers.get("accept-encoding", "")
        answer = await service.run_in_thread(answer_question, question, checkpoint, sounds, accepted)
    except Exception:
        service.infer_statistics.add_failure(served.name, time.perf_counter() - started)
        raise
    finished = time.perf_counter()
    service.infer_statistics.add_success(served.name, finished - started, stage_seconds(sounds, finished - heard))
    headers = {"Server-Timing": server_timing(longest_times(sounds)), "Vary": "Accept-Encoding"}
    if answer.encoding is not None:
        headers["Content-Encoding"] = answer.encoding
    if answer.json_bytes is not None:
        headers[JSON_LENGTH] = str(answer.json_bytes)
    kind = "application/json" if answer.json_bytes is None else "application/octet-stream"
    return Response(answer.body, media_type=kind, headers=headers)


def find_model(request: Request, name: str, version: str) -> ServedModel:
    """The model of this name; every model has one version.

    Raises: NotReadyError, ModelNotFoundError.
    """
    service = service_of(request)
    service.check_ready()
    model = service.model(name)
    if version != VERSION:
        raise ModelNotFoundError(f"model {name!r} has no version {version!r}; there is: {VERSION}")
    return model


def most_sounds(service: Service, model: ServedModel) -> int:
    """How many sounds one request may hold: never more than an empty queue would let in."""
    settings = service.settings
    fitting = int(settings.max_queue_audio_seconds / model.lane.window_seconds)
    return max(1, min(settings.max_request_sounds, settings.max_requests, fitting))


async def _receive(request: Request, model: ServedModel) -> Question:
    service = service_of(request)
    limits = upload_limits(service)
    max_bytes = min(limits.max_bytes, service.settings.max_json_bytes)
    body = await receive_bytes(request, UploadLimits(max_bytes, limits.memory_bytes, limits.idle_seconds))
    encoding, json_length = request.headers.get("content-encoding", ""), request.headers.get(JSON_LENGTH)
    return await service.run_in_thread(_read_body, body, encoding, max_bytes, json_length, most_sounds(service, model))


def _read_body(body: bytes, encoding: str, max_bytes: int, json_length: str | None, max_sounds: int) -> Question:
    request = parse_request(expand(body, encoding, max_bytes), json_length, max_sounds)
    return read_question(request, max_sounds)


async def _hear(request: Request, model: str, question: Question) -> tuple[Checkpoint, list[HeardSound]]:
    """The sounds, and the checkpoint that heard all of them."""
    query = TagQuery(
        model=model,
        window_seconds=question.window_seconds,
        hop_seconds=question.hop_seconds,
        timeout_seconds=question.timeout_seconds,
        priority=question.priority,
    )
    taggers = [open_tagger(request, sound, query) for sound in question.sounds]
    sounds = await hear_sounds(request, taggers, service_of(request).settings.max_audio_seconds)
    return taggers[0].model.checkpoint, sounds


def _classes(request: Request, model: ServedModel) -> int:
    """How many there are: the network's, and those that users have taught it."""
    own = service_of(request).own_classes.of(model.checkpoint)
    return len(own.extend_labels(model.checkpoint.labels))


def _statistics(service: Service, name: str) -> dict[str, Any]:
    return service.infer_statistics.describe(name, VERSION, service.metrics)
