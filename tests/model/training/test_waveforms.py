"""Reading while training gives what reading beforehand gives, whatever the workers, and no bad file is silent."""

from pathlib import Path

import pytest
import torch

from model.training.bad_files import BadFiles
from model.training.clips import Clip, ClipError, ManifestError
from model.training.data import load_waveforms
from model.training.waveforms import FileWaveforms, open_waveforms, read_batches
from tests.model.training.corpora import broken, write_clips


def _quiet() -> BadFiles:
    return BadFiles("skip", lambda line: None)


def test_files_are_read_as_they_are_in_memory(tmp_path: Path) -> None:
    clips = write_clips(tmp_path, [("a",)] * 5)
    _, loaded = load_waveforms(clips, 16000)
    kept, opened = open_waveforms(clips, 16000, _quiet())
    assert kept == clips
    assert len(opened) == 5
    assert all(torch.equal(a, b) for a, b in zip(loaded, opened, strict=True))
    assert [len(waveform) for waveform in opened[3:]] == [len(waveform) for waveform in loaded[3:]]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_as_they_were_asked_for(tmp_path: Path, workers: int) -> None:
    _, waveforms = open_waveforms(write_clips(tmp_path, [("a",)] * 6), 16000, _quiet())
    asked = [[3, 0], [5, 5], [], [1, 2, 4]]
    read = list(read_batches(waveforms, asked, workers))
    assert [chosen for chosen, _ in read] == asked
    for chosen, sounds in read:
        assert [len(sound) for sound in sounds] == [1600 + 160 * index for index in chosen]


def test_waveforms_in_memory_are_read_in_the_same_way(tmp_path: Path) -> None:
    waveforms = [torch.full((4,), float(number)) for number in range(4)]
    (chosen, sounds) = next(read_batches(waveforms, [[2, 1]]))
    assert chosen == [2, 1]
    assert [float(sound[0]) for sound in sounds] == [2, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_another_clip_stands_in_for_a_corrupt_one_which_is_counted(tmp_path: Path, workers: int) -> None:
    clips = [*write_clips(tmp_path, [("a",)] * 2), broken(tmp_path, "x.wav"), broken(tmp_path, "y.wav")]
    bad = _quiet()
    _, waveforms = open_waveforms(clips, 16000, bad)
    read = list(read_batches(waveforms, [[1, 2], [3, 2]], workers))
    assert [chosen for chosen, _ in read] == [[1, 0], [0, 0]]
    assert {file.name for file in bad.reasons} == {"x.wav", "y.wav"}


def test_missing_files_are_counted_before_training(tmp_path: Path) -> None:
    clips = [*write_clips(tmp_path, [("a",)]), Clip(tmp_path / "gone.wav", (), "g", None, "")]
    bad = _quiet()
    kept, waveforms = open_waveforms(clips, 16000, bad)
    assert len(kept) == len(waveforms) == 1
    assert bad.reasons == {tmp_path / "gone.wav": "no such file"}
    with pytest.raises(ManifestError, match="none of the 1 clips exist, such as"):
        open_waveforms(clips[1:], 16000, _quiet())


def test_stop_makes_the_first_bad_file_fatal(tmp_path: Path) -> None:
    clips = [*write_clips(tmp_path, [("a",)]), broken(tmp_path)]
    _, waveforms = open_waveforms(clips, 16000, BadFiles("stop"))
    with pytest.raises(ManifestError, match=r"broken\.wav cannot be read"):
        list(read_batches(waveforms, [[0, 1]]))


def test_a_corpus_that_is_gone_is_an_error_and_no_endless_search(tmp_path: Path) -> None:
    waveforms = FileWaveforms([broken(tmp_path, f"{number}.wav") for number in range(3)], 16000, _quiet())
    with pytest.raises(ManifestError, match="3 clips in a row could not be read"):
        list(read_batches(waveforms, [[0]]))
    with pytest.raises(ClipError):
        waveforms[0]
