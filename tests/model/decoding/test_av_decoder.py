"""What FFmpeg decodes, and what it leaves us to notice."""

import io

import numpy as np
import pytest

from model.audio import BrokenAudioError, NotAudioError, open_audio, read_waveform
from model.decoding.av_decoder import AvDecoder
from model.decoding.formats import MP3, sniff
from tests.media import encode_with_av, make, silent_video, sine

RATE = 48_000


@pytest.mark.parametrize(("channels", "codec"), [(6, "libopus"), (8, "libopus"), (8, "aac"), (16, "pcm_s16le")])
def test_surround_sound_is_averaged(channels: int, codec: str) -> None:
    """PyAV read the planes of a 7.1 frame on into foreign memory; a damaged AAC file crashed the process that way."""
    sound = np.zeros((RATE // 2, channels), np.float32)
    sound[:, 0] = sine(RATE, 0.5)[:, 0]
    waveform = read_waveform(encode_with_av(sound, RATE, "matroska", codec, {}), RATE)
    assert np.abs(waveform[RATE // 8 : RATE // 4]).max() == pytest.approx(0.5 / channels, rel=0.1)


@pytest.mark.parametrize("container", ["webm", "mp4"])
def test_a_hole_in_the_timeline_is_silence(container: str) -> None:
    """Recorders may send nothing while nobody speaks; what follows must not move forward."""
    holed = encode_with_av(sine(RATE, 2.0), RATE, container, "libopus", {}, hole_seconds=1.0)
    waveform = read_waveform(holed, RATE)
    assert len(waveform) == pytest.approx(3 * RATE, abs=RATE // 50)
    loudness = [np.abs(waveform[int(at * RATE) : int((at + 0.8) * RATE)]).max() for at in (0.1, 1.1, 2.1)]
    assert loudness == pytest.approx([0.5, 0.0, 0.5], abs=0.05)


def test_a_timestamp_years_ahead_is_damage_and_not_years_of_silence() -> None:
    holed = encode_with_av(sine(RATE, 2.0), RATE, "webm", "libopus", {}, hole_seconds=1e8)
    with pytest.raises(BrokenAudioError, match=r"cannot be decoded beyond 1\.0 seconds"):
        read_waveform(holed, RATE)


def test_ogg_files_joined_end_to_end_play_whole() -> None:
    """libsndfile plays the first only, and says nothing."""
    first, second = (encode_with_av(sine(RATE, seconds), RATE, "ogg", "libopus", {}) for seconds in (1.0, 2.0))
    assert len(read_waveform(first + second, RATE)) == pytest.approx(3 * RATE, abs=RATE // 20)


def test_mp3_files_joined_with_their_tags_play_whole() -> None:
    data = make("mp3 tagged", sine(44_100, 1.0), 44_100)
    apev2 = b"APETAGEX" + bytes(24)
    joined = data + b"TAG" + bytes(125) + data + apev2 + data
    assert len(read_waveform(joined, 44_100)) == pytest.approx(
        3 * 44_100, abs=44_100 // 5
    )  # each brings an encoder's delay


def test_parts_with_different_sample_rates_are_refused() -> None:
    parts = [make("mp3 uncounted", sine(rate, 0.5), rate) for rate in (44_100, 48_000)]
    with pytest.raises(BrokenAudioError, match="changes its sample rate"):
        read_waveform(b"".join(parts), RATE)


@pytest.mark.parametrize("kind", ["aac", "m4a", "m4a alac"])
def test_damage_in_the_middle_is_refused(kind: str) -> None:
    data = bytearray(make(kind, np.random.default_rng(0).uniform(-0.5, 0.5, (RATE * 4, 1)), RATE))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    with pytest.raises(BrokenAudioError, match="damaged"):
        read_waveform(bytes(data), RATE)


def test_a_header_may_declare_a_day_in_a_second_of_flac() -> None:
    data = bytearray(make("flac", sine(RATE, 1.0), RATE))
    data[22:26] = (24 * 3_600 * RATE).to_bytes(5, "big")[1:]  # the lower 32 bits of STREAMINFO's 36-bit sample count
    with pytest.raises(BrokenAudioError):
        read_waveform(bytes(data), RATE)


def test_flac_of_unknown_length_plays() -> None:
    data = bytearray(make("flac", sine(RATE, 1.0), RATE))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert len(read_waveform(bytes(data), RATE)) == RATE


def test_a_film_gives_its_sound_and_a_silent_one_is_no_audio() -> None:
    for container in ("mp4", "matroska"):
        with pytest.raises(NotAudioError, match="holds no audio stream"):
            open_audio(silent_video(container), RATE)


def test_duration_is_only_believed_where_the_header_declares_it() -> None:
    counted = make("mp3", sine(44_100, 2.0), 44_100)
    for data, declared in ((counted, 2.0), (make("mp3 uncounted", sine(44_100, 2.0), 44_100), None)):
        decoder = AvDecoder(io.BytesIO(data), sniff(io.BytesIO(data)))
        assert decoder.duration_seconds == (pytest.approx(declared, abs=0.15) if declared else None)
        decoder.close()
    assert MP3.least_seconds is None
