"""The first bytes alone decide what a file is."""

import io

import pytest

from model.audio import read_waveform
from model.decoding.errors import BrokenAudioError, NotAudioError
from model.decoding.formats import sniff
from tests.media import AV_KINDS, SOUNDFILE_KINDS, make, sine

ID3_TAG = b"ID3\x04\0\0\0\0\x01\x00" + bytes(128)
CONTAINERS = {
    "rf64": "wav",
    "ogg vorbis": "ogg",
    "opus": "ogg",
    "mov": "mp4",
    "m4a": "mp4",
    "m4a alac": "mp4",
    "webm live": "webm",
}


@pytest.mark.parametrize("kind", [*SOUNDFILE_KINDS, *AV_KINDS])
def test_every_kind_is_told_by_its_bytes(kind: str) -> None:
    data = make(kind, sine(16_000, 0.3), 16_000)
    assert sniff(io.BytesIO(data)).name == CONTAINERS.get(kind, kind.split()[0])


@pytest.mark.parametrize("kind", ["mp3", "aac", "flac"])
def test_tags_before_the_sound_are_passed_over(kind: str) -> None:
    data = make(kind, sine(16_000, 0.3), 16_000)
    assert sniff(io.BytesIO(ID3_TAG + ID3_TAG + data)).name == kind
    assert len(read_waveform(ID3_TAG + ID3_TAG + data, 16_000)) == len(read_waveform(data, 16_000))


def test_an_mp3_may_begin_in_the_middle_of_a_frame() -> None:
    data = make("mp3 uncounted", sine(16_000, 0.5), 16_000)
    assert sniff(io.BytesIO(data[100:])).name == "mp3"


def test_amr_of_older_phones() -> None:
    frame = b"\x3c" + bytes(31)  # 20 ms at 12.2 kbit/s (RFC 4867, section 5)
    assert len(read_waveform(b"#!AMR\n" + frame * 10, 8_000)) == 1_600


@pytest.mark.parametrize(
    "data", [b"RIFF\0\0\0\0AVI LIST", b"FORM\0\0\0\0ILBM", b"%PDF-1.7", b"PK\x03\x04", b"\xff\xfb"]
)
def test_other_files_are_not_audio(data: bytes) -> None:
    with pytest.raises(NotAudioError, match="send WAV"):
        sniff(io.BytesIO(data))


def test_nothing_is_empty_audio() -> None:
    for data in (b"", ID3_TAG):
        with pytest.raises(BrokenAudioError, match="empty"):
            sniff(io.BytesIO(data))
