"""One base for everything wrong with audio, and limits that real recordings never meet."""

import pytest

from model.decoding.errors import AudioError, AudioTooLongError, BrokenAudioError, NotAudioError, check_layout


def test_every_error_is_an_audio_error_and_a_value_error() -> None:
    assert issubclass(AudioError, ValueError)
    assert all(issubclass(error, AudioError) for error in (NotAudioError, BrokenAudioError, AudioTooLongError))


@pytest.mark.parametrize(("sample_rate", "channels"), [(1_000, 1), (768_000, 255)])
def test_real_recordings_pass(sample_rate: int, channels: int) -> None:
    check_layout(sample_rate, channels)


@pytest.mark.parametrize(
    ("sample_rate", "channels", "named"),
    [(0, 1, "0 Hz"), (999, 1, "999 Hz"), (768_001, 1, "768,001 Hz"), (16_000, 0, "0 chan"), (16_000, 256, "256 chan")],
)
def test_absurd_layouts_are_refused(sample_rate: int, channels: int, named: str) -> None:
    with pytest.raises(BrokenAudioError, match=named):
        check_layout(sample_rate, channels)
