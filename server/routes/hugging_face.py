"""`POST /` and `POST /models/{model}`: Hugging Face's audio-classification task, for its clients as they are.

Its inference toolkit also answers on `/predict`, so whoever moves from there changes nothing but the host.
"""

from io import BytesIO
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.scores import clip_scores, logits_to_scores
from server.door import check_door
from server.flow import Heard, hear, receive_form, service_of, upload_limits
from server.json_body import decode_base64, read_json
from server.parameters import parse_parameters
from server.routes.classify import BODY, server_timing
from server.schemas import HuggingFaceLabel, HuggingFaceParameters, HuggingFaceRequest, JsonAnswer, TagQuery
from server.uploads import EmptyUploadError, Upload, UploadLimits, media_type, receive_bytes

router = APIRouter()

PARAMETERS = HuggingFaceParameters.model_json_schema()
INPUTS = {"type": "string", "format": "byte", "description": "The bytes of an audio file, in base64."}
JSON_BODY = {"type": "object", "required": ["inputs"], "properties": {"inputs": INPUTS, "parameters": PARAMETERS}}
TASK_BODY = {**BODY, "content": {**BODY["content"], "application/json": {"schema": JSON_BODY}}}
QUERY = [
    {"name": name, "in": "query", "required": False, "schema": schema}
    for name, schema in PARAMETERS["properties"].items()
]
ROUTE: dict[str, Any] = {
    "responses": {200: {"model": list[HuggingFaceLabel]}},
    "openapi_extra": {"requestBody": TASK_BODY, "parameters": QUERY},
}


@router.post("/", operation_id="audio_classification", **ROUTE)
@router.post("/predict", operation_id="predict", **ROUTE)
async def audio_classification(request: Request) -> Response:
    """Tag a sound with the default model, as Hugging Face's inference API does."""
    return await _classify(request, None)


@router.post("/models/{model:path}", **ROUTE)
async def audio_classification_with_model(request: Request, model: str) -> Response:
    """Tag a sound with this model, as Hugging Face's inference API does."""
    return await _classify(request, model)


async def _classify(request: Request, model: str | None) -> Response:
    check_door(request, model)
    parameters, upload = await _receive(request)
    heard = await hear(request, upload, TagQuery(model=model))
    service = service_of(request)
    with heard.timings.measure_postprocess():
        answer = await service.run_in_thread(rank, heard, parameters)
    service.metrics.stage_seconds.labels(heard.model.name, "postprocess").observe(heard.timings.postprocess)
    return JsonAnswer(answer, headers={"Server-Timing": server_timing(heard.timings.milliseconds())})


def rank(heard: Heard, parameters: HuggingFaceParameters) -> list[dict[str, Any]]:
    """The clip's top labels, whose scores are logits where `function_to_apply` is "none"."""
    checkpoint = heard.model.checkpoint
    activation = parameters.function_to_apply or checkpoint.config.activation
    window_scores, labels = logits_to_scores(heard.logits, activation), checkpoint.labels
    if parameters.function_to_apply in (None, "sigmoid"):  # taught classes have sigmoids, and no logits to compare
        window_scores = np.concatenate([window_scores, heard.own.scores], axis=1)
        labels = heard.own.classes.extend_labels(labels)
    scores = clip_scores(window_scores)
    ranked = [labels[index] for index in np.argsort(-scores, kind="stable")[: parameters.top_k]]
    return [{"label": label.name, "score": float(scores[label.index]), "mid": label.mid} for label in ranked]


async def _receive(request: Request) -> tuple[HuggingFaceParameters, Upload]:
    """The sound and the parameters: of the JSON body, of a form's fields and of the query."""
    if media_type(request) != "application/json":
        query = parse_parameters(HuggingFaceParameters, request.query_params)  # refused before the upload is read
        return await receive_form(request, query)
    limits = upload_limits(service_of(request))
    max_bytes = min(limits.max_bytes, service_of(request).settings.max_json_bytes)
    body = await receive_bytes(request, UploadLimits(max_bytes, limits.memory_bytes, limits.idle_seconds))
    task, sound = await service_of(request).run_in_thread(_decode, body)
    given = task.parameters or {}
    parameters = parse_parameters(HuggingFaceParameters, {**request.query_params, **given})
    return parameters, Upload(BytesIO(sound), len(sound))


def _decode(body: bytes) -> tuple[HuggingFaceRequest, bytes]:
    task = parse_parameters(HuggingFaceRequest, read_json(body))
    sound = decode_base64(task.inputs, "'inputs'")
    if not sound:
        raise EmptyUploadError("'inputs' is empty; put the bytes of an audio file there, in base64")
    return task, sound
