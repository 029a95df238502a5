"""Bodies sent as gzip or deflate: expanded no further than a limit, and answers compressed for who asks for it."""

import gzip
import zlib

from server.parameters import InvalidParameterError
from server.uploads import UploadTooLargeError

GZIP_WINDOW = 16 + zlib.MAX_WBITS
STEP_BYTES = 1 << 20


def expand(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without its Content-Encoding; "deflate" is zlib's format, or bare as some send it.

    Raises: UploadTooLargeError as soon as more than `max_bytes` come out; InvalidParameterError for an unknown
    encoding, and for a body that is damaged, cut short or followed by something else.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise InvalidParameterError(f"Content-Encoding {encoding!r} is not understood; send gzip, deflate or none")
    decompressor = zlib.decompressobj(_window(body) if encoding == "deflate" else GZIP_WINDOW)
    expanded = _expand(decompressor, body, encoding, max_bytes)
    if not decompressor.eof:
        raise InvalidParameterError(f"the {encoding} body is cut short; send it again, whole")
    if decompressor.unused_data:
        raise InvalidParameterError(f"the {encoding} body goes on after its end")
    return expanded


def compress(body: bytes, accept_encoding: str) -> tuple[bytes, str | None]:
    """The body compressed in the first encoding of the header that we know, and that encoding; else as it is."""
    for wanted in accept_encoding.lower().split(","):
        name, _, parameters = wanted.strip().partition(";")
        if parameters.replace(" ", "") in ("q=0", "q=0.0"):
            continue
        if name == "gzip":
            return gzip.compress(body, 1), "gzip"
        if name == "deflate":
            return zlib.compress(body, 1), "deflate"
    return body, None


def _expand(decompressor: "zlib._Decompress", body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Step by step, so that what a bomb would take is never there."""
    expanded = bytearray()
    rest, step = body, b"more"
    while (rest or step) and not decompressor.eof:  # input may all be in while output is still to come
        try:
            step = decompressor.decompress(rest, min(STEP_BYTES, max_bytes + 1 - len(expanded)))
        except zlib.error as error:
            raise InvalidParameterError(f"the body is declared as {encoding} but is damaged or none") from error
        expanded += step
        if len(expanded) > max_bytes:
            raise UploadTooLargeError(f"the body expands to more than {max_bytes} bytes, the limit; send less at once")
        rest = decompressor.unconsumed_tail
    return bytes(expanded)


def _window(body: bytes) -> int:
    """zlib's two header bytes make a multiple of 31; without them it is bare deflate."""
    wrapped = len(body) >= 2 and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0
    return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS
