"""The whole flow of a tagging request, shared by every route that tags an upload.

request → parameters → upload → windows → logits → scores → Tagging with its timings
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import Request

from model.pipeline import Tagging, event_rules, window_grid
from model.scores import TagOptions, logits_to_scores, summarise
from model.windows import WindowGrid
from server.disconnect import unless_disconnected
from server.parameters import InvalidParameterError, Parameters, parse_parameters
from server.schemas import TagQuery
from server.served_models import ServedModel
from server.service import Service
from server.tagging import HeardWindow, Timings, UploadTagger
from server.uploads import Upload, UploadLimits, receive_upload


@dataclass(frozen=True)
class Heard:
    """A whole upload on its way out: window logits float32 (W, C), their places in seconds, and the timings."""

    model: ServedModel
    logits: np.ndarray
    spans: tuple[tuple[float, float], ...]
    timings: Timings
    request_id: str

    @property
    def duration_seconds(self) -> float:
        return self.spans[-1][1]

    @property
    def provenance(self) -> dict[str, Any]:
        """What exactly produced the logits."""
        info = self.model.info
        return {
            "weights_sha256": self.model.checkpoint.weights_sha256,
            "runtime": info.runtime,
            "precision": info.precision,
            "device": info.device,
            "scan": info.scan,
        }


def service_of(request: Request) -> Service:
    """The service that answers this request."""
    return request.app.state.service


def upload_limits(service: Service) -> UploadLimits:
    """What a body may cost, from the settings."""
    settings = service.settings
    return UploadLimits(settings.max_upload_bytes, settings.spool_memory_bytes, settings.upload_idle_seconds)


def check_door(request: Request, model_name: str | None) -> None:
    """Refuses, before the body is read, what cannot be answered: not ready, unknown model, full queue."""
    service = service_of(request)
    service.check_ready()
    service.engine.check_room(service.model(model_name).lane)


async def receive_form(request: Request, kind: type[Parameters]) -> tuple[Parameters, Upload]:
    """Reads the upload, and the form's fields as further parameters beside the query's, which win.

    Raises: InvalidParameterError; UploadError.
    """
    upload = await receive_upload(request, upload_limits(service_of(request)))
    with ExitStack() as failure:
        failure.callback(upload.close)
        parameters = parse_parameters(kind, {**upload.fields, **request.query_params})
        failure.pop_all()
    return parameters, upload


async def hear(request: Request, upload: Upload, query: TagQuery) -> Heard:
    """Runs every window of the upload, which it closes; a caller who leaves ends the work.

    Raises: everything that `server/errors.py` has a row for.
    """
    service = service_of(request)
    with ExitStack() as failure:
        failure.callback(upload.close)
        model = service.model(query.model)
        grid = _grid(model, query)
        failure.pop_all()
    timeout_seconds = query.timeout_seconds or service.settings.timeout_seconds
    request_id: str = request.scope["hark.request_id"]
    tagger = UploadTagger(service, upload, model, grid, timeout_seconds, request_id)
    windows = await unless_disconnected(request, _collect(tagger))
    logits = np.stack([window.logits for window in windows])
    spans = tuple((window.start_seconds, window.end_seconds) for window in windows)
    return Heard(model, logits, spans, tagger.timings, request_id)


async def conclude(service: Service, heard: Heard, query: TagQuery) -> Tagging:
    """Logits to labels, windows and events, exactly as the offline pipeline does it, on a decode thread."""
    with heard.timings.measure_postprocess():
        tagging = await service.run_in_thread(_summarise, heard, query)
    stage = service.metrics.stage_seconds.labels(heard.model.name, "postprocess")
    stage.observe(heard.timings.postprocess)
    return tagging


def _grid(model: ServedModel, query: TagQuery) -> WindowGrid:
    try:
        return window_grid(model.checkpoint, query.window_seconds, query.hop_seconds)
    except ValueError as error:
        raise InvalidParameterError(str(error)) from error


async def _collect(tagger: UploadTagger) -> list[HeardWindow]:
    async with tagger:
        return [window async for window in tagger.windows()]


def _summarise(heard: Heard, query: TagQuery) -> Tagging:
    checkpoint = heard.model.checkpoint
    options = TagOptions(query.top_k, query.threshold, query.rollup, event_rules(checkpoint))
    scores = logits_to_scores(heard.logits, checkpoint.config.activation)
    labels, windows, events = summarise(scores, heard.spans, checkpoint.labels, options)
    duration, sample_rate = heard.duration_seconds, heard.model.sample_rate
    return Tagging(checkpoint.name, duration, sample_rate, labels, windows, events, scores)
