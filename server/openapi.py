"""Writes the committed copy of the OpenAPI document: `python -m server.openapi` (`make openapi`)."""

from pathlib import Path

import orjson

from server.app import create_app
from server.settings import Settings

COMMITTED = Path(__file__).parents[1] / "docs" / "openapi.json"


def render_openapi() -> bytes:
    """The document of an app with default settings; without a version, it changes with the interface only."""
    document = create_app(Settings.model_construct()).openapi()
    document["info"]["version"] = "any"
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    COMMITTED.write_bytes(render_openapi())
