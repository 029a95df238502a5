"""What the load test sends: encoded sounds, from files or made here."""

import io
import random
import wave
from pathlib import Path

SAMPLE_RATE = 16_000


def load_clips(paths: str) -> list[bytes]:
    """The files of a comma-separated list; ten seconds of noise where there is none."""
    names = [name.strip() for name in paths.split(",") if name.strip()]
    return [Path(name).read_bytes() for name in names] or [noise_clip(10.0)]


def noise_clip(seconds: float) -> bytes:
    """Seeded noise as a 16-bit mono WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE)
        writer.writeframes(random.Random(0).randbytes(2 * round(seconds * SAMPLE_RATE)))
    return file.getvalue()
