"""W3C Trace Context: which trace a request belongs to, from its `traceparent` header to the answer's and the log lines.

https://www.w3.org/TR/trace-context/: version-trace_id-parent_id-flags, all in small hexadecimal digits.
"""

import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace

VERSION_0 = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
LATER_VERSION = re.compile(rb"(?!00|ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


@dataclass(frozen=True)
class TraceContext:
    """A place in a trace: the trace, the span, and whether the caller records it."""

    trace_id: str
    span_id: str
    sampled: bool

    def child(self, span_id: str | None = None) -> "TraceContext":
        """A span below this one, with a new id where none is given."""
        return replace(self, span_id=span_id or secrets.token_hex(8))

    @property
    def header(self) -> bytes:
        """The value of `traceparent`."""
        return f"00-{self.trace_id}-{self.span_id}-{int(self.sampled):02x}".encode()


def parse_traceparent(headers: Iterable[tuple[bytes, bytes]]) -> TraceContext | None:
    """The caller's place in a trace; None without exactly one valid header, as the recommendation wants it.

    Of a later version than 00 the part that is known is read.
    """
    values = [value for name, value in headers if name == b"traceparent"]
    if len(values) != 1:
        return None
    found = VERSION_0.fullmatch(values[0]) or LATER_VERSION.fullmatch(values[0])
    if found is None:
        return None
    trace_id, span_id, flags = (part.decode() for part in found.groups()[:3])
    if not int(trace_id, 16) or not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1))
