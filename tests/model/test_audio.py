"""Any file becomes mono float32 at the wanted rate; whatever is no sound is an AudioError and nothing else."""

import io
import tracemalloc
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from model.audio import (
    BLOCK_SAMPLES,
    AudioError,
    AudioTooLongError,
    BrokenAudioError,
    NotAudioError,
    open_audio,
    read_waveform,
    regroup,
    resample,
)
from tests.media import AV_KINDS, SOUNDFILE_KINDS, encode_with_av, make, silent_video, sine, wav

RATE = 16_000
KINDS = [*SOUNDFILE_KINDS, *AV_KINDS]
CODERS_DELAY_SAMPLES = 1_200  # what AAC in the wild adds before and behind (one or two frames), at 16 kHz


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """A 0.6-second stereo sine at 48 kHz in every kind of file."""
    return {kind: make(kind, sine(48_000, 0.6, channels=2), 48_000) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_sounds_like_the_original(files: dict[str, bytes], kind: str) -> None:
    with open_audio(files[kind], RATE) as stream:
        waveform = np.concatenate(list(stream))
    assert (stream.source_sample_rate, stream.source_channels) == (48_000, 2)
    assert waveform.dtype == np.float32
    assert len(waveform) == stream.samples_read == pytest.approx(0.6 * RATE, abs=CODERS_DELAY_SAMPLES)
    middle = waveform[RATE // 5 : RATE // 5 + RATE // 10]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) * 4 / len(middle)
    assert spectrum.argmax() == 44  # 440 Hz in bins of 10 Hz
    assert spectrum.max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("sample_rate", [1_000, 4_000, 8_000, 11_025, 22_050, 44_100, 96_000, 192_000, 384_000])
def test_every_sample_rate_keeps_duration_and_pitch(sample_rate: int) -> None:
    waveform = read_waveform(make("wav float", sine(sample_rate, 1.0, hertz=200), sample_rate), RATE)
    expected = sine(RATE, 1.0, hertz=200)[:, 0]
    assert len(waveform) == RATE
    np.testing.assert_allclose(waveform[2_000:-2_000], expected[2_000:-2_000], atol=2e-3)


@example(samples=400, source_rate=48_000, target_rate=44_100, cut=1)  # 367.5 samples: soxr rounds this tie down
@given(
    samples=st.integers(1, 5_000),
    source_rate=st.sampled_from([1_000, 8_000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 384_000]),
    target_rate=st.sampled_from([8_000, 16_000, 32_000, 44_100]),
    cut=st.integers(1, 700),
)
@settings(max_examples=100, deadline=None)
def test_resampling_keeps_the_exact_length(samples: int, source_rate: int, target_rate: int, cut: int) -> None:
    silence = np.zeros(samples, np.float32)
    blocks = [silence[start : start + cut] for start in range(0, samples, cut)]
    resampled = sum(len(block) for block in resample(blocks, source_rate, target_rate))
    assert abs(resampled - samples * target_rate / source_rate) <= 0.5


def test_channels_are_averaged() -> None:
    sound = np.stack([np.full(800, 0.6), np.full(800, -0.2), np.full(800, 0.2)], axis=1).astype(np.float32)
    np.testing.assert_allclose(read_waveform(make("wav float", sound, RATE), RATE), 0.2, atol=1e-6)


def test_loud_floats_are_not_clipped() -> None:
    assert read_waveform(make("wav float", 3 * sine(RATE, 0.1), RATE), RATE).max() == pytest.approx(1.5, abs=1e-3)


def test_a_long_sound_comes_in_full_blocks_from_path_bytes_and_file(tmp_path: Path) -> None:
    data = make("wav 16 bit", sine(RATE, 9.0), RATE)
    misnamed = tmp_path / "holiday.jpg"
    misnamed.write_bytes(data)
    upload = io.BytesIO(data)
    upload.seek(1_000)  # it is read from its beginning all the same
    for source in (misnamed, str(misnamed), data, upload):
        with open_audio(source, RATE) as stream:
            assert [len(block) for block in stream] == [BLOCK_SAMPLES, BLOCK_SAMPLES, 9 * RATE - 2 * BLOCK_SAMPLES]
    assert not upload.closed


def test_a_file_that_cannot_seek_is_the_callers_mistake() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with pytest.raises(ValueError, match="seekable"):
        open_audio(Pipe(b"RIFF"), RATE)
    with pytest.raises(ValueError, match="sample_rate"):
        open_audio(b"RIFF", 0)
    with pytest.raises(FileNotFoundError):
        open_audio("no such file.wav", RATE)


def test_files_close_at_the_end_on_errors_and_when_left_early(tmp_path: Path) -> None:
    """An open file would fail this test with a ResourceWarning; a closed stream says so instead of ending."""
    path = tmp_path / "sound"
    path.write_bytes(make("wav 16 bit", sine(RATE, 3.0), RATE))
    finished = open_audio(path, RATE)
    assert list(finished)
    assert list(finished) == []
    with open_audio(path, RATE) as left:
        next(left)
    with pytest.raises(ValueError, match="closed"):
        next(left)
    path.write_bytes(b"<!doctype html>")
    with pytest.raises(NotAudioError):
        open_audio(path, RATE)
    path.write_bytes(make("wav float", np.full((RATE, 1), np.nan, np.float32), RATE))
    with pytest.raises(BrokenAudioError), open_audio(path, RATE) as broken:
        next(broken)


TINY = sine(RATE, 0.01)
NOT_AUDIO = {
    "one byte": b"a",
    "text": b"Dear server, please listen to this. " * 100,
    "html": b"<!doctype html><html><body>404</body></html>",
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 20,
    "jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(range(256)) * 20,
    "random": np.random.default_rng(7).bytes(50_000),
    "zeros": bytes(10_000),
    "all ones": b"\xff" * 10_000,
    "text that begins like a film": b"The wide, wide world",
    "playlist": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.mp3\n",
    "concat script": b"ffconcat version 1.0\nfile /etc/hostname\n",
    "video only": silent_video("mp4"),
    "unknown codec": wav(bytes(400), codec=0x1234),
}
BROKEN = {
    "empty": b"",
    "tag only": b"ID3\x04\0\0\0\0\0\0",
    "header only": b"RIFF\0\0\0\0WAVE",
    "zero samples": wav(b""),
    "zero samples, then a chunk": wav(b"", data_bytes=0) + b"LIST\x04\0\0\0INFO",
    "less than a sample": wav(b"a"),
    "0 Hz": wav(bytes(400), sample_rate=0),
    "1 Hz": wav(bytes(400), sample_rate=1),
    "4 GHz": wav(bytes(400), sample_rate=0xFFFF_FFFF),
    "no channels": wav(bytes(400), channels=0),
    "65,535 channels": wav(bytes(131_070), channels=65_535),
    "declares 2 GB": wav(bytes(400), data_bytes=0x7FFF_FFFF),
    "declares one sample more": wav(bytes(400), data_bytes=402),
    "NaN": make("wav float", TINY * np.float32(np.nan), RATE),
    "infinite": make("wav float", TINY + np.float32(np.inf), RATE),
    "astronomic": make("wav float", TINY + np.float32(1e30), RATE),
}


@pytest.mark.parametrize("name", NOT_AUDIO)
def test_what_is_not_audio(name: str) -> None:
    with pytest.raises(NotAudioError):
        read_waveform(NOT_AUDIO[name], RATE)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken(name: str) -> None:
    with pytest.raises(BrokenAudioError):
        read_waveform(BROKEN[name], RATE)


def test_a_wav_streamed_into_a_pipe_has_no_length_and_plays() -> None:
    for unknown in (0xFFFF_FFFF, 0x7FFF_F000):
        streamed = wav(bytes(3_200), data_bytes=unknown, riff_bytes=min(unknown + 36, 0xFFFF_FFFF))
        assert len(read_waveform(streamed, RATE)) == 1_600


# Raw AAC, and MP3 without a frame count, declare no length: their frames are all there is.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("mp3 uncounted", "aac")])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.7])
def test_a_file_cut_short_is_refused(files: dict[str, bytes], kind: str, kept: float) -> None:
    data = files[kind]
    with pytest.raises(BrokenAudioError):
        read_waveform(data[: int(kept * len(data))], RATE)


def test_max_seconds_refuses_by_header_before_decoding() -> None:
    data = make("flac", np.zeros((60 * 8_000, 1), np.float32), 8_000)
    opus = make("opus", np.zeros((48_000, 1), np.float32), 48_000)
    assert len(read_waveform(opus, RATE, max_seconds=1)) == RATE  # though its header counts 6.5 ms more
    with pytest.raises(AudioTooLongError, match=r"is 60 seconds long, the limit is 10\.5 seconds"):
        open_audio(data, RATE, max_seconds=10.5)
    assert len(read_waveform(data, RATE, max_seconds=60)) == 60 * RATE


def test_max_seconds_stops_a_sound_whose_header_keeps_quiet() -> None:
    """Browsers' recordings declare no duration; so would a decompression bomb."""
    data = encode_with_av(np.zeros((48_000 * 20, 1)), 48_000, "webm", "libopus", {"live": "1"})
    assert len(data) < 20_000
    with open_audio(data, RATE, max_seconds=5) as stream, pytest.raises(AudioTooLongError, match=r"the limit is 5 sec"):
        list(stream)
    assert stream.samples_read <= 5 * RATE


def test_an_hour_is_decoded_in_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "hour.flac"
    with soundfile.SoundFile(path, "w", 8_000, 1, "PCM_16") as file:
        for _ in range(60):
            file.write(np.zeros(60 * 8_000, np.float32))
    tracemalloc.start()
    with open_audio(path, RATE) as stream:
        longest = max(len(block) for block in stream)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stream.samples_read == 3_600 * RATE  # 230 MB, were it held
    assert longest == BLOCK_SAMPLES
    assert peak_bytes < 4_000_000


@given(sizes=st.lists(st.integers(0, 50), max_size=20), block_samples=st.integers(1, 40))
@settings(deadline=None)
def test_regrouping_keeps_every_sample_in_full_blocks(sizes: list[int], block_samples: int) -> None:
    waveform = np.arange(sum(sizes), dtype=np.float32)
    regrouped = list(regroup(np.split(waveform, np.cumsum(sizes)[:-1]) if sizes else [], block_samples))
    assert [len(block) for block in regrouped[:-1]] == [block_samples] * (len(regrouped) - 1)
    assert all(0 < len(block) <= block_samples for block in regrouped)
    assert np.array_equal(np.concatenate([np.zeros(0, np.float32), *regrouped]), waveform)


MUTATION = st.tuples(
    st.floats(0, 1, exclude_max=True),  # where, as a part of the file
    st.booleans(),  # in the first 300 bytes only
    st.sampled_from(["set", "insert", "delete", "cut"]),
    st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4), b"\0\0\0\x80"]),
)


def mutate(data: bytes, mutations: list[tuple[float, bool, str, bytes]]) -> bytes:
    """Damage a file in a few places."""
    for part, in_header, how, new in mutations:
        at = int(part * (min(300, len(data)) if in_header else len(data)))
        if how == "cut":
            data = data[:at]
        else:
            behind = at + (0 if how == "insert" else len(new))
            data = data[:at] + (b"" if how == "delete" else new) + data[behind:]
    return data


@given(kind=st.sampled_from(KINDS), mutations=st.lists(MUTATION, min_size=1, max_size=4))
@example(kind="wav 16 bit", mutations=[(0.5, False, "cut", b"-")])
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_give_sound_or_an_audio_error_quietly(
    files: dict[str, bytes],
    capfd: pytest.CaptureFixture[str],
    kind: str,
    mutations: list[tuple[float, bool, str, bytes]],
) -> None:
    with suppress(AudioError), open_audio(mutate(files[kind], mutations), RATE, max_seconds=30) as stream:
        assert all(np.isfinite(block).all() for block in stream)
    assert capfd.readouterr() == ("", "")


# --- channels one by one ---


@pytest.mark.parametrize("kind", ["wav float", "flac", "opus", "m4a"])
def test_split_channels_are_those_of_the_file(kind: str) -> None:
    stereo = np.concatenate([sine(48_000, 0.6), 0.25 * sine(48_000, 0.6, hertz=1_000)], axis=1)
    with open_audio(make(kind, stereo, 48_000), RATE, channels="split") as stream:
        blocks = list(stream)
    sound = np.concatenate(blocks)
    assert sound.dtype == np.float32
    assert sound.shape[1] == stream.source_channels == 2
    assert max(block.size for block in blocks) <= BLOCK_SAMPLES
    mixed = read_waveform(make(kind, stereo, 48_000), RATE)
    np.testing.assert_allclose(sound.mean(axis=1), mixed, atol=1e-5)
    for channel, (hertz, level) in enumerate([(440, 0.5), (1_000, 0.125)]):
        middle = sound[RATE // 5 : RATE // 5 + RATE // 10, channel]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))) * 4 / len(middle)
        assert spectrum.argmax() == hertz // 10
        assert spectrum.max() == pytest.approx(level, rel=0.1)


def test_each_split_channel_is_what_it_is_alone() -> None:
    stereo = np.random.default_rng(0).standard_normal((30_000, 2)).astype(np.float32) * 0.1
    with open_audio(make("wav float", stereo, 44_100), RATE, channels="split") as stream:
        split = np.concatenate(list(stream))
    for channel in range(2):
        alone = read_waveform(make("wav float", stereo[:, [channel]], 44_100), RATE)
        np.testing.assert_allclose(split[:, channel], alone, atol=1e-6)


def test_a_hole_in_the_timeline_is_silent_in_every_channel() -> None:
    sound = encode_with_av(sine(48_000, 1.0, channels=2), 48_000, "webm", "libopus", {}, hole_seconds=1.0)
    with open_audio(sound, RATE, channels="split") as stream:
        split = np.concatenate(list(stream))
    assert len(split) == pytest.approx(2 * RATE, abs=CODERS_DELAY_SAMPLES)
    assert (np.abs(split).max(axis=1) < 1e-3).sum() > 0.8 * RATE


def test_a_split_sound_must_keep_its_number_of_channels() -> None:
    stereo = np.zeros((800, 2), np.float32)
    with open_audio(make("wav float", stereo, RATE), RATE, channels="split") as stream:
        stream.source_channels = 1  # as if the file had begun in mono
        with pytest.raises(BrokenAudioError, match="changes from 1 to 2 channels"):
            next(stream)
