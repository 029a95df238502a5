"""A Wave64 file that was written into a pipe plays; one that is cut short is still refused."""

import io
import struct

import numpy as np
import pytest

from model.audio import BrokenAudioError, read_waveform
from model.decoding.w64 import PatchedFile, fill_in_sizes
from tests.media import make, sine

RATE = 16_000


def piped(sound: np.ndarray) -> bytes:
    """A Wave64 file with its sizes as FFmpeg leaves them where it cannot go back."""
    data = bytearray(make("w64", sound, RATE))
    start = data.index(b"data\xf3\xac\xd3\x11")
    data[16:24] = struct.pack("<q", -1)
    data[start + 16 : start + 24] = struct.pack("<q", 2**63 - 1)
    return bytes(data)


def test_a_w64_from_a_pipe_plays_to_its_end() -> None:
    """It was refused, as shorter than the 18 exabytes that its header declares."""
    sound = sine(RATE, 1.0)
    np.testing.assert_array_equal(read_waveform(piped(sound), RATE), read_waveform(make("w64", sound, RATE), RATE))


def test_a_w64_that_knows_its_size_is_left_as_it_is() -> None:
    file = io.BytesIO(make("w64", sine(RATE, 0.1), RATE))
    assert fill_in_sizes(file) is file
    with pytest.raises(BrokenAudioError, match="cut short"):
        read_waveform(file.getvalue()[:-1000], RATE)


@pytest.mark.parametrize("kept", [50, 70, 95, 104])
def test_a_w64_from_a_pipe_without_sound_is_broken(kept: int) -> None:
    with pytest.raises(BrokenAudioError):
        read_waveform(piped(sine(RATE, 0.1))[:kept], RATE)


@pytest.mark.parametrize("size", [1, 2, 3, 100, -1])
def test_patches_show_however_the_file_is_read(size: int) -> None:
    file = PatchedFile(io.BytesIO(b"0123456789"), {2: b"ab", 8: b"cd"})
    read = b""
    while part := file.read(size):
        read += part
    assert read == b"01ab4567cd"
    file.seek(3)
    assert file.read(2) == b"b4"
