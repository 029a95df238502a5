"""A live stream's bytes become windows, and no frame becomes much more than it was."""

import numpy as np

from model.windows import WindowGrid
from server.live_sound import MAX_FRAME_BYTES, PART_SECONDS, LiveSound
from server.schemas import StreamStart
from tests.server.harness import RATE


def test_a_frame_of_a_low_rate_is_resampled_in_parts():
    """A mebibyte at 1 kHz used to be resampled whole: 70 MB for each of twenty streams that sent nothing unusual."""
    sound = LiveSound(StreamStart(sample_rate=1000, encoding="s16le"), RATE, WindowGrid(RATE, RATE))
    sizes, windows = [], 0
    for part in sound.parts(bytes(MAX_FRAME_BYTES)):
        waveform = sound.take(part)
        sizes.append(len(waveform))
        windows += len(list(sound.cut(waveform)))
    windows += len(list(sound.finish()))
    assert max(sizes) <= (PART_SECONDS + 1) * RATE
    assert sound.samples == MAX_FRAME_BYTES // 2 * RATE // 1000
    assert windows == 525


def test_parts_lose_no_byte_and_an_empty_frame_has_none():
    sound = LiveSound(StreamStart(sample_rate=1000, encoding="f32le"), RATE, WindowGrid(RATE, RATE))
    frame = np.arange(25_001, dtype="<f4").tobytes()
    parts = list(sound.parts(frame))
    assert [len(part) for part in parts] == [40_000, 40_000, 20_004]
    assert b"".join(parts) == frame
    assert list(sound.parts(b"")) == []
