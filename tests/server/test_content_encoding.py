"""Compressed bodies: read back, refused when wrong, and never expanded past the limit."""

import gzip
import zlib

import pytest

from server import content_encoding
from server.content_encoding import compress, expand
from server.parameters import InvalidParameterError
from server.uploads import UploadTooLargeError

BODY = bytes(range(256)) * 40


def bare_deflate(body: bytes) -> bytes:
    return zlib.compress(body)[2:-4]


@pytest.mark.parametrize(
    ("sent", "encoding"),
    [
        (BODY, ""),
        (BODY, "identity"),
        (gzip.compress(BODY), "gzip"),
        (gzip.compress(BODY), " GZIP "),
        (zlib.compress(BODY), "deflate"),
        (bare_deflate(BODY), "deflate"),
    ],
)
def test_bodies_are_expanded(sent: bytes, encoding: str) -> None:
    assert expand(sent, encoding, len(BODY)) == BODY


@pytest.mark.parametrize(
    ("sent", "encoding", "named"),
    [
        (BODY, "br", "'br' is not understood"),
        (BODY, "gzip, gzip", "not understood"),
        (BODY, "gzip", "damaged or none"),
        (b"", "gzip", "cut short"),
        (gzip.compress(BODY)[:-9], "gzip", "cut short"),
        (zlib.compress(BODY)[:-1], "deflate", "cut short"),
        (gzip.compress(BODY)[:-4] + b"abcd", "gzip", "damaged"),
        (gzip.compress(BODY) + b"more", "gzip", "goes on after its end"),
    ],
)
def test_wrong_bodies(sent: bytes, encoding: str, named: str) -> None:
    with pytest.raises(InvalidParameterError, match=named):
        expand(sent, encoding, 1 << 20)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_is_refused_at_the_limit(encoding: str) -> None:
    """100 MB of zeros are 100 KB compressed; not more than the limit and a step may ever be there."""
    bomb, _ = compress(bytes(100_000_000), encoding)
    with pytest.raises(UploadTooLargeError, match="more than 1000 bytes"):
        expand(bomb, encoding, 1000)


def test_bodies_that_end_around_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last bytes of input may be read while output waits for the next step; there is none after bare deflate."""
    monkeypatch.setattr(content_encoding, "STEP_BYTES", 1000)
    for size in range(1, 3010):
        body = bytes(size)
        assert len(expand(bare_deflate(body), "deflate", 1 << 23)) == size
        assert len(expand(gzip.compress(body), "gzip", size)) == size


def test_exactly_the_limit_passes() -> None:
    assert expand(gzip.compress(BODY), "gzip", len(BODY)) == BODY
    with pytest.raises(UploadTooLargeError):
        expand(gzip.compress(BODY), "gzip", len(BODY) - 1)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("", None),
        ("br", None),
        ("gzip", "gzip"),
        ("br, deflate;q=0.5", "deflate"),
        ("gzip;q=0, deflate", "deflate"),
        ("identity", None),
    ],
)
def test_answers_are_compressed_for_who_asks(accepted: str, encoding: str | None) -> None:
    body, used = compress(BODY, accepted)
    assert used == encoding
    assert expand(body, used or "", len(BODY)) == BODY
