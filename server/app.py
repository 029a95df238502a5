"""Builds the web application from settings; everything it holds lives in one `Service`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from starlette.staticfiles import StaticFiles

from server.auth import require_admin_key, require_api_key
from server.door import Door
from server.errors import install_error_handlers
from server.middleware import RequestMiddleware
from server.routes import (
    admin,
    catalogue,
    classes,
    classify,
    embed,
    health,
    hugging_face,
    open_inference,
    pages,
    stream,
)
from server.schemas import ErrorAnswer
from server.service import Service
from server.settings import Settings
from server.tracing import open_tracing
from server.version import VERSION

DESCRIPTION = """Hark listens to audio and says what is in it.

Every error has one body: `{"error", "error_type", "request_id"}`. Every answer carries `X-Request-ID`."""

ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request cannot be answered; the sentence says what to change."},
    "5XX": {"model": ErrorAnswer, "description": "The server cannot answer now, or failed."},
}


def create_app(settings: Settings) -> FastAPI:
    """The application; its models load in the background once it starts, and `app.state.service` is its inside."""
    service, tracing = Service(settings), open_tracing(settings.otlp_endpoint)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        await service.start()
        try:
            yield {"door": Door(service, traced=tracing is not None)}  # for what reads requests: http_protocol.py
        finally:
            await service.stop()
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="Hark",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere; ours is in routes/pages.py
        redoc_url=None,
        redirect_slashes=False,  # a redirected upload would be sent twice
        responses=ERRORS,
    )
    app.state.service = service
    guarded = [Depends(require_api_key)]
    for module in (classify, classes, embed, hugging_face, open_inference, catalogue):
        app.include_router(module.router, dependencies=guarded)
    for module in (health, pages, stream):  # a stream's key may come in its first message
        app.include_router(module.router)
    app.include_router(admin.router, dependencies=[Depends(require_admin_key)])
    app.mount("/page", StaticFiles(directory=pages.PAGE), name="page")
    install_error_handlers(app)
    app.add_middleware(RequestMiddleware, service=service, tracing=tracing)
    return app
