"""`GET /models` and `GET /labels`: what is loaded, and which classes it knows."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.flow import service_of
from server.schemas import JsonAnswer, LabelsAnswer, ModelsAnswer
from server.served_models import ServedModel

router = APIRouter()


@router.get("/models", responses={200: {"model": ModelsAnswer}})
async def models(request: Request) -> Response:
    """Every model served, the default first: its card, sizes, and what executes it."""
    service = service_of(request)
    service.check_ready()
    default = next(iter(service.models))
    return JsonAnswer({"models": [_describe(model, default) for model in service.models.values()]})


@router.get("/labels", responses={200: {"model": LabelsAnswer}})
async def labels(request: Request, model: str | None = None) -> Response:
    """A model's classes, in the order of its logits."""
    served = service_of(request).model(model)
    rows = [
        {"index": label.index, "mid": label.mid, "name": label.name, "parents": label.parents}
        for label in served.checkpoint.labels
    ]
    return JsonAnswer({"model": served.name, "labels": rows})


def _describe(model: ServedModel, default: str) -> dict[str, Any]:
    checkpoint, info = model.checkpoint, model.info
    return {
        "name": model.name,
        "default": model.name == default,
        "backbone": checkpoint.config.backbone,
        "labels": len(checkpoint.labels),
        "sample_rate": model.sample_rate,
        "window_seconds": checkpoint.config.window_seconds,
        "hop_seconds": checkpoint.config.hop_seconds,
        "activation": checkpoint.config.activation,
        "runtime": info.runtime,
        "precision": info.precision,
        "device": info.device,
        "scan": info.scan,
        "weights_sha256": checkpoint.weights_sha256,
        "golden_max_abs_diff": model.golden_max_abs_diff,
        "card": checkpoint.card,
    }
