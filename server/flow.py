"""The whole flow of a tagging request, shared by every route that tags an upload.

request → parameters → upload → windows → logits → scores → Tagging with its timings
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from starlette.requests import Request

from model.own_classes import OwnScores
from model.pipeline import Tagging, event_rules, make_tagging, window_grid
from model.scores import TagOptions
from model.windows import WindowGrid
from server.disconnect import unless_disconnected
from server.parameters import InvalidParameterError, Parameters, parse_parameters
from server.schemas import TagQuery, WindowQuery
from server.served_models import ServedModel
from server.service import Service
from server.tagging import HeardWindow, Timings, UploadTagger
from server.uploads import Upload, UploadLimits, receive_upload

FEW_WINDOWS = 2  # take a fifth of a millisecond; the way to a thread and back costs an idle server more than one


@dataclass(frozen=True)
class Heard:
    """A whole upload on its way out: window logits float32 (W, C), their places in seconds, and the timings.

    `channels` holds each window's channel, None throughout where channels were mixed.
    """

    model: ServedModel
    logits: np.ndarray
    spans: Sequence[tuple[float, float]]
    timings: Timings
    request_id: str
    channels: Sequence[int | None]
    own: OwnScores

    @property
    def duration_seconds(self) -> float:
        return self.spans[-1][1]

    @property
    def provenance(self) -> dict[str, Any]:
        """What exactly produced the logits."""
        return provenance_of(self.model)


@dataclass
class Hearing:
    """Gathers an upload's windows, in order, without their embeddings."""

    tagger: UploadTagger
    _logits: list[np.ndarray] = field(default_factory=list)
    _spans: list[tuple[float, float]] = field(default_factory=list)
    _channels: list[int | None] = field(default_factory=list)
    _own_scores: list[np.ndarray] = field(default_factory=list)

    def add(self, window: HeardWindow) -> None:
        """Takes the next window."""
        self._logits.append(window.logits.copy())  # a row of its batch's array, which may then be freed
        self._spans.append((window.start_seconds, window.end_seconds))
        self._channels.append(window.channel)
        self._own_scores.append(window.own_scores)

    def heard(self) -> Heard:
        """Everything, once every window is in."""
        tagger = self.tagger
        logits = np.stack(self._logits)
        own = OwnScores(tagger.own, np.stack(self._own_scores))
        return Heard(tagger.model, logits, self._spans, tagger.timings, tagger.request_id, self._channels, own)


def service_of(request: Request) -> Service:
    """The service that answers this request."""
    return request.app.state.service


def upload_limits(service: Service) -> UploadLimits:
    """What a body may cost, from the settings."""
    settings = service.settings
    return UploadLimits(settings.max_upload_bytes, settings.spool_memory_bytes, settings.upload_idle_seconds)


async def receive_form(request: Request, query: Parameters) -> tuple[Parameters, Upload]:
    """Reads the upload, and the form's fields as further parameters beside the query's, which win.

    Raises: InvalidParameterError; UploadError.
    """
    upload = await receive_upload(request, upload_limits(service_of(request)))
    with ExitStack() as failure:
        failure.callback(upload.close)
        if upload.fields:
            query = parse_parameters(type(query), {**upload.fields, **request.query_params})
        failure.pop_all()
    return query, upload


def open_tagger(request: Request, upload: Upload, query: TagQuery) -> UploadTagger:
    """What will run every window of the upload, and close it; on a bad parameter it is closed here.

    Raises: InvalidParameterError; NotReadyError, ModelNotFoundError.
    """
    service = service_of(request)
    with ExitStack() as failure:
        failure.callback(upload.close)
        model = service.model(query.model)
        grid = choose_grid(model, query.window_seconds, query.hop_seconds)
        failure.pop_all()
    timeout_seconds = query.timeout_seconds or service.settings.timeout_seconds
    return UploadTagger(
        service,
        upload,
        model,
        grid,
        timeout_seconds,
        request_id=request.scope["hark.request_id"],
        priority=query.priority,
        channels=query.channels,
        place=request.scope["hark.place"],
    )


async def hear(request: Request, upload: Upload, query: TagQuery) -> Heard:
    """Runs every window of the upload, which it closes; a caller who leaves ends the work.

    Raises: everything that `server/errors.py` has a row for.
    """
    return await unless_disconnected(request, _collect(open_tagger(request, upload, query)))


async def conclude(service: Service, heard: Heard, query: TagQuery) -> Tagging:
    """Logits to labels, windows and events, exactly as the offline pipeline does it; many on a decode thread."""
    with heard.timings.measure_postprocess():
        if len(heard.spans) <= FEW_WINDOWS:
            tagging = _summarise(heard, query)
        else:
            tagging = await service.run_in_thread(_summarise, heard, query)
    stage = service.metrics.stage_seconds.labels(heard.model.name, "postprocess")
    stage.observe(heard.timings.postprocess)
    return tagging


def provenance_of(model: ServedModel) -> dict[str, Any]:
    """What exactly produces a model's logits."""
    info = model.info
    return {
        "weights_sha256": model.checkpoint.weights_sha256,
        "runtime": info.runtime,
        "precision": info.precision,
        "device": info.device,
        "scan": info.scan,
    }


def tag_options(model: ServedModel, query: WindowQuery) -> TagOptions:
    """What the caller asks to read, with the model's own rules for events."""
    return TagOptions(query.top_k, query.threshold, query.rollup, event_rules(model.checkpoint))


def choose_grid(model: ServedModel, window_seconds: float | None, hop_seconds: float | None) -> WindowGrid:
    """The windows asked for, by default the model's own.

    Raises: InvalidParameterError.
    """
    try:
        return window_grid(model.checkpoint, window_seconds, hop_seconds)
    except ValueError as error:
        raise InvalidParameterError(str(error)) from error


async def _collect(tagger: UploadTagger) -> Heard:
    hearing = Hearing(tagger)
    async with tagger:
        async for window in tagger.windows():
            hearing.add(window)
    return hearing.heard()


def _summarise(heard: Heard, query: TagQuery) -> Tagging:
    options = tag_options(heard.model, query)
    return make_tagging(heard.model.checkpoint, heard.logits, heard.spans, heard.channels, options, heard.own)
