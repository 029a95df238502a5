"""The bundled negatives are whole and attributed, and a clip's windows are what a class should be taught from."""

from io import BytesIO

import numpy as np
import pytest
import soundfile

from model.audio import AudioTooLongError, NotAudioError
from model.background import (
    FOLDER,
    MAX_CLIP_WINDOWS,
    background_clips,
    background_files,
    background_waveforms,
    teaching_windows,
)

RATE = 16_000


def clip(seconds: float) -> bytes:
    file = BytesIO()
    soundfile.write(file, np.linspace(-0.5, 0.5, round(seconds * RATE)), RATE, format="WAV")
    return file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "lengths"), [(1, [1, 5]), (2.5, [2.5, 5]), (2.6, [2.6]), (5, [5]), (12, [5, 5, 5])]
)
def test_windows_of_a_clip(seconds: float, lengths: list[float]) -> None:
    windows = teaching_windows(clip(seconds), RATE, 5 * RATE)
    assert [len(window) / RATE for window in windows] == lengths


def test_a_short_clip_is_also_repeated() -> None:
    """Taught from padded windows alone, a class of one-second clips was found in 3 % of full windows."""
    alone, repeated = teaching_windows(clip(1), RATE, 5 * RATE)
    assert np.array_equal(repeated, np.tile(alone, 5))


def test_of_a_long_clip_evenly_spread_windows_count() -> None:
    windows = teaching_windows(clip(60), RATE, RATE)
    assert len(windows) == MAX_CLIP_WINDOWS
    assert windows[0][0] == pytest.approx(-0.5, abs=1e-3)
    assert windows[-1][-1] == pytest.approx(0.5, abs=1e-3)


def test_what_is_no_clip() -> None:
    with pytest.raises(AudioTooLongError):
        teaching_windows(clip(61), RATE, RATE)
    with pytest.raises(NotAudioError):
        teaching_windows(b"no sound at all", RATE, RATE)


def test_every_bundled_sound_is_readable_short_and_attributed() -> None:
    waveforms = background_waveforms(RATE, 10 * RATE)
    credits = (FOLDER / "README.md").read_text()
    assert len(waveforms) == len(background_files()) == 54
    assert all(len(waveform) <= 5 * RATE for waveform in waveforms)
    assert sum(len(waveform) < 2.5 * RATE for waveform in waveforms) > 20, "clip length must be no cue"
    assert all(f"`{path.name}`" in credits for path in background_files())
    assert len(background_clips(np.zeros((54, 4), np.float32))) == 54
