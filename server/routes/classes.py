"""`PUT`, `GET` and `DELETE /classes/{name}`: labels that users teach a model from a handful of clips."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from starlette.datastructures import FormData, UploadFile
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from model.own_classes import OwnClass
from server.auth import require_admin_key
from server.class_clips import ClipFile, ClipReader
from server.disconnect import unless_disconnected
from server.flow import service_of, upload_limits
from server.own_classes import LEAST_CLIPS, MOST_CLIPS, Lesson, TooFewClipsError, describe_quality
from server.schemas import JsonAnswer, OwnClassAnswer, OwnClassesAnswer
from server.served_models import ServedModel
from server.uploads import BadMultipartError, EmptyUploadError, receive_files

router = APIRouter()

FIELDS = {
    "file": "Clips of the class, at least three; five to twenty are a good number.",
    "negative": "Clips without it, best of what it is mistaken for; optional.",
}
BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    name: {"type": "array", "items": {"type": "string", "format": "binary"}, "description": text}
                    for name, text in FIELDS.items()
                },
            }
        }
    },
}
ModelName = Annotated[str | None, Query(description="Whose class it is; by default the default model's.")]


async def require_teacher(connection: HTTPConnection) -> None:
    """Teaching changes what everybody is answered: where admin keys are set, one of them is needed."""
    if connection.app.state.service.settings.admin_keys:
        await require_admin_key(connection)


TEACHER = [Depends(require_teacher)]


@router.put(
    "/classes/{name:path}",
    dependencies=TEACHER,
    responses={200: {"model": OwnClassAnswer}, 201: {"model": OwnClassAnswer, "description": "The name is new."}},
    openapi_extra={"requestBody": BODY},
)
async def put_class(request: Request, name: str, model: ModelName = None) -> Response:
    """Teach a model a label from a handful of clips; it stands in every answer from then on.

    A class of that name is replaced by a new version. `quality` says how well clips are told apart that were left out
    of teaching, `message` the same in one sentence. Needs an admin key where the server has one.
    """
    service = service_of(request)
    served = choose_model(request, model)
    name = service.own_classes.check(served.checkpoint, name)
    service.engine.check_room(served.lane)
    form = await receive_files(request, upload_limits(service), MOST_CLIPS)
    try:
        files, negatives = clip_files(form)
        reader = ClipReader(service, served, request.scope["hark.request_id"])
        positive_clips, negative_clips = await unless_disconnected(request, reader.read(files, negatives))
    finally:
        await form.close()
    lesson = Lesson(name, positive_clips, negative_clips)
    own = await service.run_in_thread(service.own_classes.teach, served.checkpoint, lesson)
    return JsonAnswer(describe_class(own, served), 201 if own.version == 1 else 200)


@router.get("/classes", responses={200: {"model": OwnClassesAnswer}})
async def own_classes(request: Request, model: ModelName = None) -> Response:
    """The labels that were taught to a model."""
    served = choose_model(request, model)
    classes = service_of(request).own_classes.of(served.checkpoint)
    return JsonAnswer({"model": served.name, "classes": [describe_class(own, served) for own in classes]})


@router.get("/classes/{name:path}", responses={200: {"model": OwnClassAnswer}})
async def own_class(request: Request, name: str, model: ModelName = None) -> Response:
    """One taught label: its version, its threshold and how well it is told apart."""
    served = choose_model(request, model)
    own = service_of(request).own_classes.find(served.checkpoint, name)
    return JsonAnswer(describe_class(own, served))


@router.delete("/classes/{name:path}", dependencies=TEACHER, status_code=204, response_class=Response)
async def delete_class(request: Request, name: str, model: ModelName = None) -> Response:
    """Forget a taught label, all its versions included. Needs an admin key where the server has one."""
    service = service_of(request)
    served = choose_model(request, model)
    await service.run_in_thread(service.own_classes.remove, served.checkpoint, name)
    return Response(status_code=204)


def choose_model(request: Request, name: str | None) -> ServedModel:
    """The model of this name, else the default one, however the traffic is split.

    Raises: NotReadyError, ModelNotFoundError.
    """
    service = service_of(request)
    service.check_ready()
    return service.pool.choose(name or service.pool.default)


def clip_files(form: FormData) -> tuple[list[ClipFile], list[ClipFile]]:
    """The form's clips of the class, and those without it.

    Raises: BadMultipartError, TooFewClipsError, EmptyUploadError.
    """
    if unknown := [name for name in form if name not in FIELDS]:
        raise BadMultipartError(f"there is no field {unknown[0]!r}; there are: {', '.join(FIELDS)}")
    files, negatives = (_files_of(form, name) for name in FIELDS)
    if len(files) < LEAST_CLIPS:
        raise TooFewClipsError(
            f"a class needs at least {LEAST_CLIPS} clips and got {len(files)}; with curl, one -F file=@clip.wav each"
        )
    return files, negatives


def _files_of(form: FormData, name: str) -> list[ClipFile]:
    return [_clip_file(value, f"{name} {place}") for place, value in enumerate(form.getlist(name), 1)]


def _clip_file(value: UploadFile | str, place: str) -> ClipFile:
    if isinstance(value, str):
        raise BadMultipartError(f"{place} has no filename; send it as a file, with curl: -F file=@clip.wav")
    named = f"{place} ({value.filename})"
    if not value.size:
        raise EmptyUploadError(f"{named} is empty; send the bytes of an audio file")
    return ClipFile(named, value.file)


def describe_class(own: OwnClass, served: ServedModel) -> dict[str, Any]:
    """A taught class as the answers have it."""
    quality = own.quality
    return {
        "name": own.name,
        "mid": own.mid,
        "model": served.name,
        "version": own.version,
        "created": own.created,
        "message": describe_quality(own),
        "quality": {
            "told_apart": quality.told_apart,
            "confused_with": quality.confused_with,
            "average_precision": quality.average_precision,
            "threshold": quality.threshold,
            "recall": quality.recall,
            "precision": quality.precision,
            "clips": quality.clips,
            "negatives": quality.negatives,
        },
    }
