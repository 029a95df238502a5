"""What people open in a browser: the web page and the list of what the server answers."""

from pathlib import Path

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response

from server.docs_page import render_docs

router = APIRouter(include_in_schema=False)
PAGE = Path(__file__).parent.parent / "page"


@router.get("/")
async def index() -> Response:
    """The web page."""
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Every path, its parameters and its answers, from the OpenAPI document; works offline."""
    return HTMLResponse(render_docs(request.app.openapi()))
