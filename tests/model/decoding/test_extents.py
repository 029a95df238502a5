"""A header that promises more than the file holds is found without decoding."""

import io
import struct

import pytest

from model.decoding.errors import BrokenAudioError
from model.decoding.extents import check_extent
from model.decoding.formats import sniff
from tests.media import AV_KINDS, SOUNDFILE_KINDS, make, sine, wav

COUNTED_IN_SAMPLES = ("flac", "mp3", "mp3 tagged", "mp3 uncounted", "aac")
PAGED = ("ogg vorbis", "opus", "ogg flac")
SIZED = [kind for kind in (*SOUNDFILE_KINDS, *AV_KINDS) if kind not in COUNTED_IN_SAMPLES + PAGED]


def check(data: bytes) -> None:
    check_extent(io.BytesIO(data), sniff(io.BytesIO(data)))


@pytest.mark.parametrize("kind", SIZED)
def test_one_missing_byte_is_noticed(kind: str) -> None:
    data = make(kind, sine(16_000, 0.3), 16_000)
    check(data)
    with pytest.raises(BrokenAudioError, match=f"only {len(data) - 1:,} are there"):
        check(data[:-1])


@pytest.mark.parametrize("kind", COUNTED_IN_SAMPLES)
def test_kinds_without_a_size_are_left_to_their_decoder(kind: str) -> None:
    data = make(kind, sine(16_000, 0.3), 16_000)
    check(data[: len(data) // 2])


@pytest.mark.parametrize("kind", ["wav 16 bit", "aiff", "caf", "m4a", "webm"])
def test_bytes_behind_the_sound_do_no_harm(kind: str) -> None:
    check(make(kind, sine(16_000, 0.3), 16_000) + bytes(100))


def test_chunks_before_the_sound_are_walked_over() -> None:
    plain = wav(bytes(400))
    odd_chunk = b"LIST\x05\0\0\0abcde\0"
    check(plain[:12] + odd_chunk + plain[12:])
    with pytest.raises(BrokenAudioError):
        check(plain[:12] + b"LIST\xff\xff\xff\0" + plain[12:])


def test_a_file_of_tiny_elements_does_not_keep_us_busy() -> None:
    """Half a million headers at most are read; the rest is the decoder's affair."""
    check(b"\x1a\x45\xdf\xa3\x80" + b"\xec\x80" * 600_000)
    check(struct.pack(">I4s", 8, b"ftyp") + struct.pack(">I4s", 8, b"free") * 600_000)
