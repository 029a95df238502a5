"""`GET /models` and `GET /labels`: what is loaded, and which classes it knows."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from model.pipeline import event_rules
from server.flow import service_of
from server.model_pool import ModelPool
from server.schemas import JsonAnswer, LabelsAnswer, ModelsAnswer
from server.served_models import ServedModel

router = APIRouter()


@router.get("/models", responses={200: {"model": ModelsAnswer}})
async def models(request: Request) -> Response:
    """Every model served, the default first: its card, sizes, and what executes it."""
    service = service_of(request)
    service.check_ready()
    return JsonAnswer({"models": describe_models(service.pool), "changes": service.pool.changes})


@router.get("/labels", responses={200: {"model": LabelsAnswer}})
async def labels(request: Request, model: str | None = None) -> Response:
    """A model's classes, in the order of its logits; then those that users have taught it."""
    service = service_of(request)
    service.check_ready()
    served = service.pool.choose(model or service.pool.default)
    own = service.own_classes.of(served.checkpoint)
    rules = own.extend_rules(event_rules(served.checkpoint))
    rows = [
        {
            "index": label.index,
            "mid": label.mid,
            "name": label.name,
            "parents": label.parents,
            "threshold": rules.thresholds(label.mid)[0],
        }
        for label in own.extend_labels(served.checkpoint.labels)
    ]
    return JsonAnswer({"model": served.name, "labels": rows})


def describe_models(pool: ModelPool) -> list[dict[str, Any]]:
    """Every model as it is served, the default first."""
    models = sorted(pool.models.values(), key=lambda model: model.name != pool.default)
    return [describe_model(model, pool) for model in models]


def describe_model(model: ServedModel, pool: ModelPool) -> dict[str, Any]:
    """One model as it is served."""
    checkpoint, info = model.checkpoint, model.info
    return {
        "name": model.name,
        "state": pool.state_of(model.name),
        "default": model.name == pool.default,
        "traffic_share": pool.shares.get(model.name),
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
