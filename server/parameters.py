"""Checks parameters, from wherever in a request they come, against the models of `schemas.py`."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Parameters = TypeVar("Parameters", bound=BaseModel)

MOST_PROBLEMS = 8  # named in one sentence


class InvalidParameterError(ValueError):
    """A parameter has a value outside its range, or a name that does not exist; the sentence names it."""


def parse_parameters(kind: type[Parameters], values: Mapping[str, Any]) -> Parameters:
    """The parameters as `kind`.

    Raises: InvalidParameterError naming everything that is wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InvalidParameterError(describe_problems(error.errors(), kind)) from error


def describe_query(kind: type[BaseModel]) -> list[dict[str, Any]]:
    """What the OpenAPI document says of a query that its route parses by itself.

    The framework's own way from a query to such a model took a quarter of a request's time on the event loop.
    """
    schema = kind.model_json_schema()
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": field,
            "description": field["description"],
        }
        for name, field in schema["properties"].items()
    ]


def describe_problems(problems: Sequence[Mapping[str, Any]], kind: type[BaseModel] | None = None) -> str:
    """Pydantic's problems as one sentence, the first few of them: a caller may send any number."""
    more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
    return "; ".join([*(_describe(problem, kind) for problem in problems[:MOST_PROBLEMS]), *more])


def _describe(problem: Mapping[str, Any], kind: type[BaseModel] | None) -> str:
    name = ".".join(str(part) for part in problem["loc"] if part not in ("query", "path", "body")) or "body"
    if problem["type"] == "extra_forbidden":
        known = f"; there are: {', '.join(kind.model_fields)}" if kind is not None else ""
        return f"there is no parameter {name!r}{known}"
    if problem["type"] == "model_type":  # pydantic's own words name our class
        return f"{name} must be a JSON object"
    message = problem["msg"][:1].lower() + problem["msg"][1:]
    return f"parameter {name!r}: {message}"
