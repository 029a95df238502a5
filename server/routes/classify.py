"""`POST /classify`: a sound in, its labels, windows and events out."""

from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.pipeline import Tagging
from server.door import check_door
from server.flow import Heard, conclude, hear, receive_form, service_of
from server.formats import FORMATS, Report, answer
from server.parameters import InvalidParameterError, describe_query, parse_parameters
from server.schemas import ClassifyAnswer, JsonAnswer, StreamMessage, TagQuery
from server.streaming import Framing, answer_as_stream, check_format, choose_framing
from server.uploads import Upload

router = APIRouter()

BODY: dict[str, Any] = {
    "required": True,
    "description": "An audio file (wav, flac, ogg, mp3, m4a, aac, webm, opus, mp4): field `file`, or the raw bytes.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}},
            }
        },
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}


MESSAGE = StreamMessage.model_json_schema()
ANSWER: dict[str, Any] = {
    "model": ClassifyAnswer,
    "description": "The answer; as a stream, one message per window, then the answer as a message, or an error.",
    "content": {"text/event-stream": {"schema": MESSAGE}, "application/x-ndjson": {"schema": MESSAGE}},
}


@router.post(
    "/classify", responses={200: ANSWER}, openapi_extra={"parameters": describe_query(TagQuery), "requestBody": BODY}
)
async def classify(request: Request) -> Response:
    """Tag a sound: the clip's top labels, every window's, and events with beginning and end.

    With `Accept: text/event-stream` or `application/x-ndjson`, windows come while the rest is still being tagged.
    """
    query = parse_parameters(TagQuery, request.query_params)
    framing = choose_framing(", ".join(request.headers.getlist("accept")))
    check_format(framing, query)
    check_door(request, query.model, query.timeout_seconds, query.priority)
    query, upload = await receive_form(request, query)
    if framing is not None:
        return await stream_upload(request, upload, query, framing)
    heard = await hear(request, upload, query)
    tagging = await conclude(service_of(request), heard, query)
    return render(heard, tagging, query.format, upload.filename)


async def stream_upload(request: Request, upload: Upload, query: TagQuery, framing: Framing) -> Response:
    """The answer as a stream; the form's fields may have asked for another format, too."""
    try:
        check_format(framing, query)
    except InvalidParameterError:
        upload.close()
        raise
    return await answer_as_stream(request, upload, query, framing)


def render(heard: Heard, tagging: Tagging, format_name: str, filename: str) -> Response:
    """The answer in the format asked for; label files name the upload, JSON keeps to its contract."""
    timing = heard.timings.milliseconds()
    extra = {"timing": timing, "provenance": heard.provenance, "request_id": heard.request_id}
    report = Report(tagging, extra=extra)
    headers = {"Server-Timing": server_timing(timing)}
    if format_name == "json":
        return JsonAnswer(answer(report), headers=headers)
    form = FORMATS[format_name]
    text = "".join(form.write([replace(report, source=filename)]))
    return Response(text, media_type=form.media_type, headers=headers)


def server_timing(timing: dict[str, Any]) -> str:
    """The same milliseconds as a `Server-Timing` header."""
    return ", ".join(f"{stage.removesuffix('_ms')};dur={value}" for stage, value in timing.items())
