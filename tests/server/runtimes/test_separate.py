"""A runtime in a process of its own answers as it would here, says what went wrong there, and outlives its process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint, CheckpointError, load
from model.registry import find_checkpoint
from server.runtimes.base import DeviceLostError, DeviceOutOfMemoryError
from server.runtimes.separate import DIVIDES, ProcessEndedError, SeparateRuntime
from server.runtimes.torch_runtime import TorchRuntime, open_torch
from tests.server.runtimes.scripted import Scripted, open_never, open_scripted

WAVEFORMS, LENGTHS = np.zeros((2, 100), np.float32), np.array([100, 50])


@pytest.fixture
def scripted() -> Iterator[SeparateRuntime]:
    runtime = SeparateRuntime(Scripted(3), open_scripted)
    yield runtime
    runtime.close()


def told(what: int) -> np.ndarray:
    waveforms = WAVEFORMS.copy()
    waveforms[0, 0] = what
    return waveforms


def wait_for_batches(runtime: SeparateRuntime, count: int) -> None:
    """Returns when so many batches are there."""
    while sum(map(len, runtime._processes._free)) > runtime.most_batches - count:
        time.sleep(0.01)


def process_of(runtime: SeparateRuntime) -> int:
    return int(runtime.run(WAVEFORMS, LENGTHS, 2).logits[0, 0])


def test_it_answers_as_the_runtime_does_here() -> None:
    folder = find_checkpoint("aum-tiny")
    checkpoint: Checkpoint = load(folder)
    waveforms = np.random.default_rng(0).normal(0, 0.1, (2, checkpoint.config.window_samples)).astype(np.float32)
    lengths = np.array([waveforms.shape[1], waveforms.shape[1] // 2])
    here = TorchRuntime(checkpoint, "cpu")
    opening = partial(open_torch, folder, "cpu", "float32", torch.get_num_threads(), checkpoint.weights_sha256)
    there = SeparateRuntime(here, opening)
    try:
        expected, answer = here.run(waveforms, lengths), there.run(waveforms, lengths, 2)
    finally:
        there.close()
    assert np.allclose(answer.logits, expected.logits, atol=1e-4)
    assert np.allclose(answer.embeddings, expected.embeddings, atol=1e-4)
    assert (there.info, there.most_batches) == (here.info, here.most_batches + there.ready_batches)


def test_a_batch_alone_runs_here(scripted: SeparateRuntime) -> None:
    assert scripted.run(WAVEFORMS, LENGTHS).logits[0, 0] == os.getpid() % 2**20


def test_it_runs_in_another_process_and_several_threads_may_ask(scripted: SeparateRuntime) -> None:
    with ThreadPoolExecutor(8) as pool:  # more than there are connections
        processes = set(pool.map(lambda _: process_of(scripted), range(64)))
    assert len(processes) == (Scripted.most_batches if DIVIDES else 1)
    assert os.getpid() % 2**20 not in processes


@pytest.mark.skipif(not DIVIDES, reason="on this system it stays one process")
def test_batches_side_by_side_run_in_processes_of_their_own(scripted: SeparateRuntime) -> None:
    processes = []
    with ThreadPoolExecutor(3) as pool:
        for busy in range(3):
            slow = [pool.submit(scripted.run, told(4), LENGTHS, 2) for _ in range(busy)]
            wait_for_batches(scripted, busy)
            processes.append(process_of(scripted))
            for batch in slow:
                batch.result()
    assert len(set(processes)) == 3


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [(1, DeviceOutOfMemoryError, "too much"), (2, RuntimeError, "odd"), (5, FileNotFoundError, "gone")],
)
def test_what_is_raised_there_is_raised_here(
    scripted: SeparateRuntime, what: int, kind: type[Exception], words: str
) -> None:
    before = process_of(scripted)
    with pytest.raises(kind, match=words):
        scripted.run(told(what), LENGTHS, 2)
    assert process_of(scripted) == before


def test_a_process_that_is_killed_is_replaced(scripted: SeparateRuntime) -> None:
    before = process_of(scripted)
    with pytest.raises(ProcessEndedError, match="code -9"):
        scripted.run(told(3), LENGTHS, 2)
    assert process_of(scripted) != before


def test_after_a_crash_in_any_of_them_all_are_started_anew_once(scripted: SeparateRuntime) -> None:
    with ThreadPoolExecutor(3) as pool:
        before = set(pool.map(lambda _: process_of(scripted), range(24)))
        slow = [pool.submit(scripted.run, told(4), LENGTHS, 2) for _ in range(2)]
        wait_for_batches(scripted, 2)
        with pytest.raises(ProcessEndedError):
            scripted.run(told(3), LENGTHS, 2)
        started = scripted._processes
        for batch in slow:
            with pytest.raises(ProcessEndedError):
                batch.result()
        assert not before & set(pool.map(lambda _: process_of(scripted), range(24)))
    assert scripted._processes is started


def test_a_thread_that_dies_there_leaves_nobody_waiting(scripted: SeparateRuntime) -> None:
    with pytest.raises(ProcessEndedError):
        scripted.run(told(6), LENGTHS, 2)
    assert process_of(scripted)


def test_no_more_batches_share_the_cores_than_run_there(scripted: SeparateRuntime) -> None:
    assert scripted.run(WAVEFORMS, LENGTHS, scripted.most_batches).logits[0, 1] == Scripted.most_batches


def test_other_weights_than_those_that_were_checked_are_not_served() -> None:
    with pytest.raises(CheckpointError, match="not those that were there"):
        open_torch(find_checkpoint("aum-tiny"), "cpu", "float32", 1, "0" * 64)


@pytest.mark.parametrize(
    ("opening", "kind", "words"),
    [
        (partial(open_never, CheckpointError), CheckpointError, "cannot be opened"),
        (partial(open_never, PermissionError), PermissionError, "cannot be opened"),
        (open_never, DeviceLostError, "code 7 as it started"),
    ],
)
def test_one_that_cannot_be_opened_says_why(opening: Callable[[], Scripted], kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        SeparateRuntime(Scripted(3), opening)


def test_ctrl_c_and_sigterm_leave_the_process_to_the_server(scripted: SeparateRuntime) -> None:
    process = scripted._processes._first
    assert os.getpgid(process.pid) != os.getpgid(0)  # a terminal sends Ctrl-C to the server's group
    process.send_signal(signal.SIGTERM)
    assert process_of(scripted)


def test_closing_lets_a_batch_finish_and_ends_the_process() -> None:
    runtime = SeparateRuntime(Scripted(3), open_scripted)
    process = runtime._processes._first
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(runtime.run, told(4), LENGTHS, 2)
        wait_for_batches(runtime, 1)
        runtime.close()
        assert len(batch.result().logits) == 2
    assert process.poll() == 0
    with pytest.raises(ProcessEndedError):
        runtime.run(WAVEFORMS, LENGTHS, 2)
    assert runtime._processes._first is process  # none was started in its place


def test_it_ends_with_the_server_however_that_ends() -> None:
    script = (
        "import os; from server.runtimes.separate import SeparateRuntime; "
        "from tests.server.runtimes.scripted import open_scripted; "
        "SeparateRuntime(open_scripted(), open_scripted); os.kill(os.getpid(), 9)"
    )
    # Both hold the pipe of this output: it ends when they have.
    ended = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=False)
    assert ended.returncode == -9


@pytest.mark.skipif(not DIVIDES, reason="on this system it stays one process")
def test_as_many_processes_as_cores_have_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = len(os.sched_getaffinity(0))
    for processes, expected in ((cores, 1), (cores + 1, cores)):
        monkeypatch.setattr(Scripted, "most_batches", processes)
        runtime = SeparateRuntime(Scripted(3), open_scripted)
        try:
            with ThreadPoolExecutor(runtime.most_batches) as pool:
                batches = [*pool.map(lambda _, run=runtime.run: run(WAVEFORMS, LENGTHS, 2), range(8 * processes))]
        finally:
            runtime.close()
        assert {int(batch.logits[0, 2]) for batch in batches} == {expected}
