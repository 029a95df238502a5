"""`POST /embed`: a sound in, its windows' embeddings out: what the network hands to its head."""

from io import BytesIO
from typing import Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.door import check_door
from server.flow import open_tagger, provenance_of, receive_form, service_of
from server.parameters import describe_query, parse_parameters
from server.routes.classify import BODY, server_timing
from server.schemas import EmbedAnswer, EmbedQuery, JsonAnswer, TagQuery
from server.sounds import HeardSound, hear_sounds
from server.tagging import UploadTagger

router = APIRouter()

NPY = "application/octet-stream"
NPY_CONTENT = {NPY: {"schema": {"type": "string", "format": "binary"}}}


@router.post(
    "/embed",
    responses={200: {"model": EmbedAnswer, "content": NPY_CONTENT}},
    openapi_extra={"parameters": describe_query(EmbedQuery), "requestBody": BODY},
)
async def embed(request: Request) -> Response:
    """Embed a sound: one vector per window and their mean; as .npy (W, D) the windows' alone."""
    query = parse_parameters(EmbedQuery, request.query_params)
    check_door(request, query.model)
    query, upload = await receive_form(request, query)
    tagger = open_tagger(request, upload, TagQuery(**query.model_dump(exclude={"format"})))
    service = service_of(request)
    [sound] = await hear_sounds(request, [tagger], service.settings.max_audio_seconds)
    headers = {"Server-Timing": server_timing(sound.timings.milliseconds())}
    if query.format == "npy" or (query.format is None and accepts_npy(request.headers.get("accept", ""))):
        body = await service.run_in_thread(write_npy, sound.embeddings)
        return Response(body, media_type=NPY, headers={**headers, "Vary": "Accept"})
    answer = await service.run_in_thread(lambda: JsonAnswer(describe(sound, tagger)))
    answer.headers.update({**headers, "Vary": "Accept"})
    return answer


def accepts_npy(accept: str) -> bool:
    """Whether the header asks for bytes before it asks for JSON, or for anything."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    known = [kind for kind in kinds if kind in (NPY, "application/json", "application/*", "*/*")]
    return known[:1] == [NPY]


def write_npy(embeddings: np.ndarray) -> bytes:
    """Embeddings float32 (W, D) as an .npy file."""
    file = BytesIO()
    np.save(file, np.ascontiguousarray(embeddings, "<f4"))
    return file.getvalue()


def describe(sound: HeardSound, tagger: UploadTagger) -> dict[str, Any]:
    """The JSON answer as plain values."""
    windows = zip(sound.spans, sound.embeddings, strict=True)
    return {
        "model": tagger.model.name,
        "duration_seconds": sound.duration_seconds,
        "sample_rate": tagger.model.sample_rate,
        "embedding": sound.mean_embedding(),
        "embeddings": [
            {"start_seconds": start, "end_seconds": end, "embedding": embedding} for (start, end), embedding in windows
        ],
        "timing": sound.timings.milliseconds(),
        "provenance": provenance_of(tagger.model),
        "request_id": tagger.request_id,
    }
