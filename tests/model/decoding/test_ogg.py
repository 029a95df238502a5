"""A page that is damaged, missing or cut off is noticed; decoders would play on without it."""

import io

import numpy as np
import pytest
import soundfile

from model.audio import read_waveform
from model.decoding.errors import BrokenAudioError
from model.decoding.ogg import count_streams
from tests.media import make, sine

RATE = 48_000


@pytest.fixture(scope="module", params=["ogg vorbis", "opus", "ogg flac"])
def data(request: pytest.FixtureRequest) -> bytes:
    """Four seconds of noise: several pages."""
    return make(request.param, np.random.default_rng(0).uniform(-0.5, 0.5, (4 * RATE, 1)), RATE)


def pages(data: bytes) -> list[bytes]:
    return [b"OggS" + page for page in data.split(b"OggS")[1:]]


def count(data: bytes) -> int | None:
    return count_streams(io.BytesIO(data), 0)


def test_intact_files_hold_one_stream_and_joined_ones_several(data: bytes) -> None:
    assert count(data) == 1
    assert count(data + data) == 2
    assert count(data + bytes(200)) == 1
    assert len(read_waveform(data + data, RATE)) == pytest.approx(8 * RATE, abs=RATE // 20)


def test_any_damaged_byte_is_noticed(data: bytes) -> None:
    for at in np.random.default_rng(1).integers(0, len(data), 50):
        damaged = bytearray(data)
        damaged[at] ^= 1
        with pytest.raises(BrokenAudioError, match=r"damaged|cut short"):
            count(bytes(damaged))


def test_a_missing_page_and_a_missing_end_are_noticed(data: bytes) -> None:
    parts = pages(data)
    assert len(parts) > 5
    with pytest.raises(BrokenAudioError, match="missing"):
        count(b"".join(parts[:3] + parts[4:]))
    with pytest.raises(BrokenAudioError, match="foreign"):
        count(b"".join([*parts[:3], b"junk" * 20_000, *parts[3:]]))
    for kept in (1, 2, 100, 5_000, len(data) - 1):
        with pytest.raises(BrokenAudioError, match="cut short"):
            count(data[:kept])


@pytest.mark.parametrize("samples", [1_000, 9_000, 16_000])
def test_short_vorbis_keeps_its_last_samples(samples: int) -> None:
    """FFmpeg gave 15,744 of the 16,000 samples of a real one-second clip."""
    data = make("ogg vorbis", sine(16_000, samples / 16_000), 16_000)
    assert len(read_waveform(data, 16_000)) == samples == soundfile.info(io.BytesIO(data)).frames


def test_a_file_of_tiny_pages_does_not_keep_us_busy(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("model.decoding.ogg._MAX_PAGES", 3)
    assert count(data) is None
