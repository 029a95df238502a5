"""Frames of MPEG audio are found by their chain, not by one lucky header."""

import numpy as np
import pytest

from model.decoding.mpeg import find_first_frame, least_seconds
from tests.media import encode_with_av, make, sine


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 22_050, 44_100])
@pytest.mark.parametrize(
    ("container", "codec", "kind"), [("mp3", "libmp3lame", "mp3"), ("mp2", "mp2", "mp3"), ("adts", "aac", "aac")]
)
def test_frames_are_found_behind_junk(sample_rate: int, container: str, codec: str, kind: str) -> None:
    if codec == "mp2":
        sample_rate = max(sample_rate, 16_000)  # FFmpeg's encoder goes no lower
    options = {"id3v2_version": "0"} if container == "mp3" else {}
    data = encode_with_av(sine(sample_rate, 0.5), sample_rate, container, codec, options)
    assert find_first_frame(data, ends_here=True) == (kind, 0)
    assert find_first_frame(b"\xff\xff junk" + data, ends_here=True) == (kind, 7)


def test_noise_holds_no_chain() -> None:
    rng = np.random.default_rng(0)
    assert all(find_first_frame(rng.bytes(65_536), ends_here=False) is None for _ in range(20))


def test_a_single_frame_counts_when_it_is_the_whole_file() -> None:
    data = make("mp3 uncounted", sine(44_100, 0.5), 44_100)
    size = data.find(b"\xff\xfb", 1)
    assert find_first_frame(data[:size], ends_here=True) == ("mp3", 0)
    assert find_first_frame(data[:size] + b"other", ends_here=True) is None


def test_the_first_frame_counts_the_others() -> None:
    counted = make("mp3", sine(44_100, 2.0), 44_100)
    assert least_seconds(counted) == pytest.approx(2.0, abs=0.15)
    assert least_seconds(counted) < 2.0
    assert least_seconds(make("mp3 uncounted", sine(44_100, 2.0), 44_100)) is None
