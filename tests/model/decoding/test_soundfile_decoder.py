"""The fast path takes what libsndfile knows, and leaves the rest to FFmpeg."""

import io
import os

import numpy as np
import pytest

from model.decoding import soundfile_decoder
from model.decoding.errors import BrokenAudioError
from model.decoding.soundfile_decoder import open_soundfile
from tests.media import make, sine, wav


def test_blocks_hold_all_channels_and_are_bounded() -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, (30_000, 8)).astype(np.float32)
    decoder = open_soundfile(io.BytesIO(make("wav float", sound, 44_100)))
    assert decoder is not None
    blocks = list(decoder.blocks())
    assert (decoder.codec, decoder.sample_rate, decoder.channels) == ("float", 44_100, 8)
    assert decoder.duration_seconds == pytest.approx(30_000 / 44_100)
    assert max(block.size for block in blocks) <= 131_072
    assert np.array_equal(np.concatenate(blocks), sound)
    decoder.close()


def test_what_libsndfile_refuses_is_left_to_ffmpeg() -> None:
    assert open_soundfile(io.BytesIO(wav(bytes(400), codec=0x1234))) is None


def test_a_shorter_sound_than_declared_is_broken() -> None:
    data = make("flac", sine(16_000, 3.0), 16_000)
    decoder = open_soundfile(io.BytesIO(data[: len(data) // 2]))
    assert decoder is not None
    with pytest.raises(BrokenAudioError, match="cut short"):
        list(decoder.blocks())
    decoder.close()


def test_short_files_are_read_by_the_system_and_long_ones_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a Python file libsndfile waited 20 times per clip for its turn behind a busy network."""
    data = wav(bytes(200_000))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for most in (len(data), len(data) - 1):
        monkeypatch.setattr(soundfile_decoder, "_COPIED_BYTES", most)
        file = CountedReads(data)
        decoder = open_soundfile(file)
        assert decoder is not None
        assert sum(map(len, decoder.blocks())) == 100_000
        decoder.close()
        assert (file.reads == 0) is (most == len(data))
        assert open_soundfile(io.BytesIO(b"RIFF" + bytes(100))) is None
    assert not before or len(os.listdir("/proc/self/fd")) == before, "no descriptor is left open"


class CountedReads(io.BytesIO):
    """Counts the reads of native code."""

    reads = 0

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self.reads += 1
        return super().readinto(buffer)
