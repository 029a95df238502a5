"""Small sounds made in code, and the files that recorders, phones and browsers would make of them."""

import io
import struct
from typing import Any

import av
import numpy as np
import soundfile

SOUNDFILE_KINDS: dict[str, tuple[str, str | None]] = {
    "wav 8 bit": ("WAV", "PCM_U8"),
    "wav 16 bit": ("WAV", "PCM_16"),
    "wav 24 bit": ("WAV", "PCM_24"),
    "wav 32 bit": ("WAV", "PCM_32"),
    "wav float": ("WAV", "FLOAT"),
    "wav double": ("WAV", "DOUBLE"),
    "wav mu-law": ("WAV", "ULAW"),
    "wav a-law": ("WAV", "ALAW"),
    "wav adpcm": ("WAV", "IMA_ADPCM"),
    "wav extensible": ("WAVEX", "PCM_24"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg vorbis": ("OGG", "VORBIS"),
    "mp3": ("MP3", None),
}
AV_KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "m4a": ("ipod", "aac", {}),  # its index (moov) stands at the end
    "m4a alac": ("ipod", "alac", {}),
    "mp4 fragmented": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "mov": ("mov", "pcm_s24le", {}),
    "aac": ("adts", "aac", {}),
    "webm": ("webm", "libopus", {}),
    "webm live": ("webm", "libopus", {"live": "1"}),  # as browsers record: no sizes, no duration
    "matroska": ("matroska", "aac", {}),
    "opus": ("ogg", "libopus", {}),
    "ogg flac": ("ogg", "flac", {}),
    "mp3 tagged": ("mp3", "libmp3lame", {}),
    "mp3 uncounted": ("mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}),
}


def sine(sample_rate: int, seconds: float, channels: int = 1, hertz: float = 440.0) -> np.ndarray:
    """A sine at half of full scale, the same in every channel: float32 (samples, channels)."""
    time_seconds = np.arange(round(sample_rate * seconds)) / sample_rate
    wave = 0.5 * np.sin(2 * np.pi * hertz * time_seconds)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def make(kind: str, sound: np.ndarray, sample_rate: int) -> bytes:
    """Encode (samples, channels) as one of the kinds above."""
    if kind in SOUNDFILE_KINDS:
        container, codec = SOUNDFILE_KINDS[kind]
        file = io.BytesIO()
        soundfile.write(file, sound, sample_rate, format=container, subtype=codec)
        return file.getvalue()
    return encode_with_av(sound, sample_rate, *AV_KINDS[kind])


def encode_with_av(
    sound: np.ndarray, sample_rate: int, container: str, codec: str, options: dict[str, str], hole_seconds: float = 0.0
) -> bytes:
    """Encode (samples, channels) with FFmpeg; the second half of the packets may say that it comes later."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1", 16: "hexadecagonal"}[sound.shape[1]]
    packed = np.ascontiguousarray(sound, dtype=np.float32).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate, frame.pts = sample_rate, 0
    file = io.BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        stream: Any = output.add_stream(codec, rate=sample_rate)
        stream.layout = layout
        packets = [*stream.encode(frame), *stream.encode(None)]
        for packet in packets[len(packets) // 2 :]:
            packet.pts += round(hole_seconds / packet.time_base)
            packet.dts = packet.pts
        output.mux(packets)
    return file.getvalue()


def silent_video(container: str) -> bytes:
    """One second of black pictures, without any sound."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream: Any = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for _ in range(10):
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return file.getvalue()


def wav(
    body: bytes,
    *,
    channels: int = 1,
    sample_rate: int = 16_000,
    bits: int = 16,
    codec: int = 1,
    data_bytes: int | None = None,
    riff_bytes: int | None = None,
) -> bytes:
    """A WAV file by hand, so that every field of its header can lie."""
    data_bytes = len(body) if data_bytes is None else data_bytes
    riff_bytes = 36 + len(body) if riff_bytes is None else riff_bytes
    frame_bytes = channels * bits // 8 % 65_536
    second_bytes = sample_rate * frame_bytes % (1 << 32)
    layout = struct.pack("<HHIIHH", codec, channels, sample_rate, second_bytes, frame_bytes, bits)
    return b"RIFF%sWAVEfmt \x10\0\0\0%sdata%s%s" % (
        struct.pack("<I", riff_bytes),
        layout,
        struct.pack("<I", data_bytes),
        body,
    )
