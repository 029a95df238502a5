"""A request's body as JSON, and sound inside it as base64."""

import base64
import binascii
from typing import Any

import orjson

from server.parameters import InvalidParameterError


def read_json(body: bytes | memoryview) -> Any:
    """The body's value.

    Raises: InvalidParameterError where it is no JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidParameterError(f"the body is declared as JSON but is none: {error}") from error


def decode_base64(text: str | bytes, name: str) -> bytes:
    """The bytes of base64 text, whose lines may be broken.

    Raises: InvalidParameterError, which calls the text `name`.
    """
    encoded = text.encode() if isinstance(text, str) else text
    try:
        return base64.b64decode(encoded.translate(None, b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidParameterError(f"{name} must be the bytes of an audio file in base64") from error
