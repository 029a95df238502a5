"""Liveness, readiness, what runs, and the metrics; none of them ever waits for the device."""

import platform
import time

import torch
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.flow import service_of
from server.metrics import MEDIA_TYPE
from server.schemas import JsonAnswer
from server.version import VERSION

router = APIRouter()


@router.get("/health", operation_id="health")
@router.get("/healthz", operation_id="healthz")
@router.get("/livez", operation_id="livez")
@router.get("/ping", operation_id="ping")
async def live(request: Request) -> Response:
    """The process is alive; whether it can tag is what `/readyz` says."""
    return JsonAnswer({"status": "alive", "state": service_of(request).state})


@router.get("/readyz")
async def ready(request: Request) -> Response:
    """Models are loaded, checked and warm; 503 while starting or draining."""
    service_of(request).check_ready()
    service_of(request).engine.check_workers()
    return JsonAnswer({"status": "ready", "models": list(service_of(request).models)})


@router.get("/v2/health/live")
async def open_inference_live(request: Request) -> Response:
    """The process is alive, in the words of the Open Inference Protocol."""
    return JsonAnswer({"live": True})


@router.get("/v2/health/ready")
async def open_inference_ready(request: Request) -> Response:
    """As `/readyz`, in the words of the Open Inference Protocol."""
    service_of(request).check_ready()
    service_of(request).engine.check_workers()
    return JsonAnswer({"live": True, "ready": True})


@router.get("/info")
async def info(request: Request) -> Response:
    """What runs here, and its limits."""
    service = service_of(request)
    settings, models = service.settings, service.models
    return JsonAnswer(
        {
            "name": "hark",
            "version": VERSION,
            "state": service.state,
            "uptime_seconds": round(time.time() - service.started_at, 3),
            "default_model": service.pool.default or None,
            "models": {name: model.info for name, model in models.items()},
            "refused_runtimes": {name: [vars(r) for r in model.refused] for name, model in models.items()},
            "limits": {
                "max_upload_bytes": settings.max_upload_bytes,
                "max_audio_seconds": settings.max_audio_seconds,
                "max_requests": settings.max_requests,
                "max_queue_audio_seconds": settings.max_queue_audio_seconds,
            },
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
    )


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus metrics."""
    return Response(service_of(request).metrics.render(), headers={"Content-Type": MEDIA_TYPE})
