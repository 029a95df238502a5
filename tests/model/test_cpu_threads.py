"""Slices of work: all of it done once, in torch's team or a pool, from any number of callers; failures come out."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from model import cpu_threads
from model.cpu_threads import end_team, run_slices, slice_count


@pytest.fixture(params=["openmp", "pool"], autouse=True)
def backend(request, monkeypatch):
    """Both ways of running slices, wherever the machine has them."""
    if request.param == "pool":
        monkeypatch.setattr(cpu_threads, "_openmp", lambda: None)
    elif cpu_threads._openmp() is None:
        pytest.skip("torch brings no GNU OpenMP here")


@pytest.fixture(params=[1, 2, 5])
def threads(request, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: request.param)
    return request.param


@pytest.mark.parametrize("items", [0, 1, 2, 3, 100])
def test_every_item_once(items, threads):
    slices = slice_count(items)
    assert 1 <= slices <= threads
    done = []
    run_slices(lambda i, first, last: done.extend((i, item) for item in range(first, last)), items, slices)
    assert sorted(item for _, item in done) == list(range(items))
    assert {i for i, _ in done} <= set(range(slices))


def test_a_smaller_team_does_all_slices(monkeypatch):
    """OpenMP may grant fewer threads than asked for; no slice may be forgotten."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    done = []
    run_slices(lambda i, first, last: done.append(i), 9, 3)
    assert sorted(done) == [0, 1, 2]


def test_a_failure_comes_out_after_all_slices_ended(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    ended = []

    def kernel(i, first, last):
        if i == 1:
            raise ArithmeticError("slice 1")
        ended.append(i)

    with pytest.raises(ArithmeticError, match="slice 1"):
        run_slices(kernel, 9, 3)
    assert sorted(ended) == [0, 2]


def test_several_callers_at_once(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def total(items):
        sums = [0, 0]

        def kernel(i, first, last):
            sums[i] = sum(range(first, last))

        run_slices(kernel, items, 2)
        return sum(sums)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(total, range(2, 202))) == [sum(range(items)) for items in range(2, 202)]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads as Linux lists them")
def test_a_team_that_was_ended_leaves_no_thread_and_starts_again():
    if cpu_threads._openmp() is None:
        pytest.skip("a pool has no teams")
    usual = torch.get_num_threads()
    torch.set_num_threads(3)
    values = torch.rand(1 << 20)
    try:
        before = values.exp()
        with_team = len(list(Path("/proc/self/task").iterdir()))
        end_team()
        assert len(list(Path("/proc/self/task").iterdir())) <= with_team - 2
        assert torch.equal(values.exp(), before)
    finally:
        torch.set_num_threads(usual)
