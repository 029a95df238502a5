"""The committed OpenAPI document is the app's."""

import orjson

from server.openapi import COMMITTED, render_openapi


def test_the_committed_document_matches_the_app() -> None:
    assert COMMITTED.read_bytes() == render_openapi(), "run `make openapi` and commit docs/openapi.json"


def test_every_operation_documents_the_one_error_body() -> None:
    for path, methods in orjson.loads(render_openapi())["paths"].items():
        for operation in methods.values():
            for status in ("4XX", "5XX"):
                schema = operation["responses"][status]["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, path
            assert "422" not in operation["responses"]
            assert operation["description"], path
