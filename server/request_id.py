"""What a request is called in logs, answers and errors."""

import os
import re
from collections.abc import Iterable

SANE_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")  # nothing that could forge a log line or a header


def choose_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The caller's X-Request-ID where it is sane, else a new one; names of headers in lower case."""
    for name, value in headers:
        if name == b"x-request-id" and SANE_ID.fullmatch(value):
            return value.decode()
    return new_request_id()


def new_request_id() -> str:
    """One that no other request has."""
    return os.urandom(16).hex()
