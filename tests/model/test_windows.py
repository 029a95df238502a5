"""Every sample lies in a window, no window is padded, and the cutting of blocks does not show."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.windows import Window, WindowCutter, WindowGrid, count_windows, cut_channels, cut_windows


@st.composite
def grids(draw: st.DrawFn) -> WindowGrid:
    window_samples = draw(st.integers(1, 40))
    return WindowGrid(window_samples, draw(st.integers(1, window_samples)))


def cut(samples: int, grid: WindowGrid, block_samples: int = 16) -> list[Window]:
    waveform = np.arange(samples, dtype=np.float32)
    return list(cut_windows((waveform[at : at + block_samples] for at in range(0, samples, block_samples)), grid))


@pytest.mark.parametrize(
    ("samples", "starts", "lengths"),
    [
        (0, [], []),
        (1, [0], [1]),
        (9, [0], [9]),
        (10, [0], [10]),
        (11, [0, 1], [10, 10]),
        (14, [0, 4], [10, 10]),
        (15, [0, 4, 5], [10, 10, 10]),
        (22, [0, 4, 8, 12], [10, 10, 10, 10]),
    ],
)
def test_windows_of_ten_every_four(samples: int, starts: list[int], lengths: list[int]) -> None:
    windows = cut(samples, WindowGrid(10, 4))
    assert [window.start_sample for window in windows] == starts
    assert [len(window.waveform) for window in windows] == lengths
    assert [window.index for window in windows] == list(range(len(starts)))


@given(samples=st.integers(1, 200), grid=grids(), block_samples=st.integers(1, 60))
@settings(deadline=None)
def test_windows_cover_every_sample_and_end_with_the_clip(samples: int, grid: WindowGrid, block_samples: int) -> None:
    windows = cut(samples, grid, block_samples)
    covered = set()
    for window in windows:
        assert np.array_equal(window.waveform, np.arange(window.start_sample, window.end_sample))
        assert window.waveform.dtype == np.float32
        assert len(window.waveform) == min(samples, grid.window_samples)
        covered.update(range(window.start_sample, window.end_sample))
    assert covered == set(range(samples))
    assert windows[-1].end_sample == samples
    assert len(windows) == count_windows(samples, grid)
    starts = [window.start_sample for window in windows]
    assert starts[:-1] == [index * grid.hop_samples for index in range(len(starts) - 1)]
    assert 0 <= starts[-1] - (starts[-2] if len(starts) > 1 else 0) <= grid.hop_samples


@given(samples=st.integers(0, 200), grid=grids(), sizes=st.lists(st.integers(0, 30), max_size=30))
@settings(deadline=None)
def test_windows_do_not_depend_on_the_blocks(samples: int, grid: WindowGrid, sizes: list[int]) -> None:
    waveform = np.arange(samples, dtype=np.float32)
    blocks = np.split(waveform, np.minimum(np.cumsum(sizes), samples).astype(int))
    ragged = list(cut_windows(blocks, grid))
    whole = list(cut_windows([waveform], grid))
    assert [(w.index, w.start_sample, w.waveform.tolist()) for w in ragged] == [
        (w.index, w.start_sample, w.waveform.tolist()) for w in whole
    ]


def test_windows_come_while_the_sound_still_streams() -> None:
    """A window leaves with the block that completes it, and keeps its samples whatever comes after."""
    block = np.ones(10, np.float32)
    taken = []

    def blocks() -> Iterator[np.ndarray]:
        for number in range(3):
            taken.append(number)
            yield block * number

    windows = cut_windows(blocks(), WindowGrid(10, 10))
    first = next(windows)
    assert taken == [0]
    rest = list(windows)
    assert [window.waveform.mean() for window in (first, *rest)] == [0, 1, 2]
    assert all(window.waveform.base is None for window in (first, *rest))


@pytest.mark.parametrize(("window", "hop"), [(10, 0), (10, 11), (0, 0), (10, -1), (0, 1)])
def test_a_grid_that_would_skip_samples_is_refused(window: int, hop: int) -> None:
    with pytest.raises(ValueError, match="hop_samples"):
        WindowGrid(window, hop)


def test_channels_are_cut_alike_and_come_in_order() -> None:
    sound = np.stack([np.arange(22), 100 + np.arange(22)], axis=1).astype(np.float32)
    windows = list(cut_channels(np.array_split(sound, [3, 11]), WindowGrid(10, 4)))
    assert [(window.index, window.channel) for window in windows] == [(i, c) for i in range(4) for c in range(2)]
    for channel in range(2):
        alone = cut_windows([sound[:, channel]], WindowGrid(10, 4))
        own = (window for window in windows if window.channel == channel)
        for got, wanted in zip(own, alone, strict=True):
            assert got.start_sample == wanted.start_sample
            assert got.waveform.tolist() == wanted.waveform.tolist()
            assert got.waveform.base is None


def test_a_cutter_gives_each_window_with_the_block_that_completes_it() -> None:
    cutter = WindowCutter(WindowGrid(10, 5))
    block = np.zeros(4, np.float32)
    assert [len(list(cutter.push(block))) for _ in range(6)] == [0, 0, 1, 1, 1, 0]
    assert [window.start_sample for window in cutter.finish()] == [14]
    assert cutter.samples == 24
    assert list(WindowCutter(WindowGrid(10, 5)).finish()) == []


def test_a_cutter_keeps_no_hold_of_what_it_was_given() -> None:
    cutter, block = WindowCutter(WindowGrid(10, 10)), np.ones(9, np.float32)
    assert not list(cutter.push(block))
    block[:] = 7
    (window,) = cutter.push(np.ones(1, np.float32))
    assert window.waveform.tolist() == [1] * 10
