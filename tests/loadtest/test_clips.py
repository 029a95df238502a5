"""What the load test sends."""

import io
from pathlib import Path

import soundfile

from loadtest.clips import load_clips, noise_clip


def test_noise_is_a_readable_wav_and_the_same_every_time():
    waveform, sample_rate = soundfile.read(io.BytesIO(noise_clip(1.5)))
    assert (len(waveform), sample_rate) == (24000, 16000)
    assert noise_clip(1.5) == noise_clip(1.5)


def test_files_are_sent_as_they_are(tmp_path: Path):
    (tmp_path / "a.ogg").write_bytes(b"a")
    (tmp_path / "b.ogg").write_bytes(b"b")
    assert load_clips(f"{tmp_path}/a.ogg, {tmp_path}/b.ogg") == [b"a", b"b"]
    assert load_clips("") == [noise_clip(10)]
