"""The offline pipeline on real and made sounds."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from model import checkpoint
from model.audio import AudioTooLongError, BrokenAudioError
from model.pipeline import tag
from model.registry import find_checkpoint

SAMPLES = Path(__file__).parents[2] / "server" / "page" / "samples"


@pytest.fixture(scope="module")
def tiny() -> checkpoint.Checkpoint:
    return checkpoint.load(find_checkpoint("aum-tiny"))


def _noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(round(seconds * 16000)).astype(np.float32) * 0.1


def _wav(waveform: np.ndarray, sample_rate: int = 16000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, sample_rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def test_a_short_clip_is_one_window(tiny: checkpoint.Checkpoint) -> None:
    tagging = tag(_noise(1.5), tiny, top_k=3)
    assert tagging.duration_seconds == 1.5
    assert [(window.start_seconds, window.end_seconds) for window in tagging.windows] == [(0.0, 1.5)]
    assert len(tagging.labels) == 3
    assert tagging.scores.shape == (1, len(tiny.labels))


def test_bytes_and_waveform_give_the_same_scores(tiny: checkpoint.Checkpoint) -> None:
    waveform = _noise(6.0)
    np.testing.assert_allclose(tag(_wav(waveform), tiny).scores, tag(waveform, tiny).scores, atol=1e-6)


def test_the_last_window_ends_with_the_sound(tiny: checkpoint.Checkpoint) -> None:
    tagging = tag(_noise(12.4), tiny)
    spans = [(window.start_seconds, window.end_seconds) for window in tagging.windows]
    assert spans == [(0.0, 5.0), (5.0, 10.0), (7.4, 12.4)]


def test_batching_changes_no_score(tiny: checkpoint.Checkpoint) -> None:
    waveform = _noise(21.0)
    alone = tag(waveform, tiny, batch_windows=1).scores
    together = tag(waveform, tiny, batch_windows=5).scores
    np.testing.assert_allclose(alone, together, atol=1e-4)


def test_the_clip_scores_are_the_highest_over_its_windows(tiny: checkpoint.Checkpoint) -> None:
    tagging = tag(_noise(14.0), tiny, top_k=1)
    assert tagging.labels[0].score == pytest.approx(tagging.scores.max(), abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"window_seconds": 0.0},
        {"window_seconds": 60.0},
        {"hop_seconds": 0.0},
        {"hop_seconds": 6.0},
        {"window_seconds": 0.05},
        {"hop_seconds": 0.05},
        {"top_k": 0},
        {"threshold": 1.5},
    ],
)
def test_a_parameter_out_of_range_is_refused(tiny: checkpoint.Checkpoint, options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        tag(_noise(1.0), tiny, **options)  # type: ignore[arg-type]


def test_a_tensor_and_a_bytearray_are_tagged_alike(tiny: checkpoint.Checkpoint) -> None:
    waveform = _noise(1.0)
    expected = tag(waveform, tiny).scores
    np.testing.assert_allclose(tag(torch.from_numpy(waveform), tiny).scores, expected, atol=1e-6)
    np.testing.assert_allclose(tag(bytearray(_wav(waveform)), tiny).scores, expected, atol=1e-6)


@pytest.mark.parametrize("waveform", [np.zeros(8000, np.int16), np.zeros((2, 8000), np.float32)])
def test_an_array_that_is_no_waveform_is_refused(tiny: checkpoint.Checkpoint, waveform: np.ndarray) -> None:
    """An early version took int16 samples for a waveform in [-1, 1] and tagged a dog as a toilet flush."""
    with pytest.raises(ValueError, match="floating-point"):
        tag(waveform, tiny)


def test_too_long_and_empty_sounds_are_refused(tiny: checkpoint.Checkpoint) -> None:
    with pytest.raises(AudioTooLongError):
        tag(_wav(_noise(3.0)), tiny, max_seconds=2.0)
    with pytest.raises(BrokenAudioError):
        tag(_wav(_noise(0.0)), tiny)
    with pytest.raises(ValueError, match="empty"):
        tag(_noise(0.0), tiny)


@pytest.mark.parametrize(
    ("file", "label"),
    [
        ("dog.ogg", "Bark"),
        ("rooster.ogg", "Crowing, cock-a-doodle-doo"),
        ("rain.ogg", "Rain"),
        ("bells.ogg", "Church bell"),
        ("baby.ogg", "Baby cry, infant cry"),
    ],
)
def test_real_sounds_get_their_label_among_the_first_three(tiny: checkpoint.Checkpoint, file: str, label: str) -> None:
    assert label in [scored.label for scored in tag(SAMPLES / file, tiny, top_k=3).labels]


def test_every_channel_is_tagged_as_if_it_were_alone(tiny: checkpoint.Checkpoint) -> None:
    left, right = _noise(7.0), 0.1 * _noise(7.0)[::-1]
    split = tag(_wav(np.stack([left, right], axis=1)), tiny, top_k=3, channels="split")
    assert split.duration_seconds == 7.0
    assert [(window.channel, window.start_seconds) for window in split.windows] == [(0, 0), (1, 0), (0, 2), (1, 2)]
    for channel, waveform in enumerate((left, right)):
        alone = tag(waveform, tiny, top_k=3)
        np.testing.assert_allclose(split.scores[channel::2], alone.scores, atol=1e-5)
        assert [label.mid for label in split.channels[channel].labels] == [label.mid for label in alone.labels]
        own = [event for event in split.events if event.channel == channel]
        assert [(event.mid, event.start_seconds) for event in own] == [
            (event.mid, event.start_seconds) for event in alone.events
        ]
    assert split.labels[0].score == pytest.approx(split.scores.max(), abs=1e-6)


def test_a_waveform_is_one_channel_and_mixed_sounds_have_none(tiny: checkpoint.Checkpoint) -> None:
    split, mixed = tag(_noise(1.0), tiny, channels="split"), tag(_noise(1.0), tiny)
    assert [window.channel for window in split.windows] == [0]
    assert split.channels[0].labels == split.labels == mixed.labels
    assert mixed.channels == ()
    assert [window.channel for window in mixed.windows] == [None]
