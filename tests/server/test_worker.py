"""What a worker survives: poisoned windows, a device out of memory, and its own death."""

import time
from collections.abc import Iterator
from concurrent.futures import wait

import httpx
import numpy as np
import pytest

from server import worker
from server.engine import Engine, InferenceFailedError, WorkerStuckError
from server.runtimes.base import BatchResult, DeviceLostError, ProcessEndedError
from server.runtimes.fake import FakeRuntime
from server.service import Service
from tests.server.gated import GatedRuntime, hold_device, make_engine, make_lane, window
from tests.server.harness import check_error

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = make_engine()
    yield engine
    engine.stop(0)


@pytest.mark.parametrize("poisoned", [{3}, {0, 7}, set(range(8))])
def test_a_poisoned_window_fails_alone(engine: Engine, poisoned: set[int]) -> None:
    runtime = GatedRuntime()
    runtime.poison = 0.25
    lane = make_lane(runtime, batch_windows=8)
    held = hold_device(engine, runtime, lane)
    futures = [engine.submit(engine.admit(lane), window(0.25 if i in poisoned else 0.5)) for i in range(8)]
    runtime.gate.set()
    wait([held, *futures], 10)
    assert runtime.calls[1] == 8, "they shared a batch at first"
    assert {i for i, future in enumerate(futures) if future.exception()} == poisoned
    assert all(isinstance(futures[i].exception(), InferenceFailedError) for i in poisoned)


def test_a_device_out_of_memory_halves_the_budget_and_recovers(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.batch_budget.PATIENCE_BATCHES", 8)
    runtime = GatedRuntime()
    runtime.memory_windows = 2
    lane = make_lane(runtime, batch_windows=8)
    futures = [hold_device(engine, runtime, lane)]
    job = engine.admit(lane)
    futures += [engine.submit(job, window()) for _ in range(12)]
    runtime.gate.set()
    wait(futures, 10)
    assert all(future.result() for future in futures), "nobody noticed"
    assert runtime.calls == [1, 8, 4, 2, 2, 2, 2, 2, 2], "from the second failure on, in batches that fit"
    runtime.memory_windows = None
    for _ in range(40):  # full batches in peace: the budget grows back
        runtime.gate.clear()
        futures = [engine.submit(job, window()) for _ in range(9)]
        runtime.gate.set()
        wait(futures, 10)
    assert 8 in runtime.calls[-8:]


def test_one_window_that_does_not_fit_fails(engine: Engine) -> None:
    runtime = FakeRuntime(4)
    runtime.memory_windows = 0
    lane = make_lane(runtime)
    with pytest.raises(InferenceFailedError):
        engine.submit(engine.admit(lane), window()).result(10)


@pytest.mark.parametrize("death", [SystemExit("the runtime called exit"), KeyboardInterrupt()])
def test_a_worker_that_dies_fails_its_batch_and_lives_again(engine: Engine, death: BaseException) -> None:
    runtime = FakeRuntime(4)
    runtime.death = death
    lane = make_lane(runtime)
    with pytest.raises(InferenceFailedError):
        engine.submit(engine.admit(lane), window()).result(10)
    assert engine.submit(engine.admit(lane), window()).result(10)
    assert engine._metrics.registry.get_sample_value("hark_worker_restarts_total") == 1


def test_a_lost_device_fails_its_batch_and_shuts_the_door(engine: Engine) -> None:
    """After an illegal access a GPU repeats its error at every call: trying halves would only lose time."""
    runtime = GatedRuntime()
    runtime.death = DeviceLostError("an illegal memory access was encountered")
    lane = make_lane(runtime)
    busy = GatedRuntime()
    hold_device(engine, busy, make_lane(busy))
    futures = [engine.submit(engine.admit(lane), window()) for _ in range(4)]
    busy.gate.set()
    runtime.gate.set()
    assert [type(future.exception(10)).__name__ for future in futures] == ["InferenceFailedError"] * 4
    assert runtime.calls == [4]
    with pytest.raises(WorkerStuckError, match="device cpu is lost"):
        engine.check_room(lane)


def test_a_deadline_that_passes_between_two_tries_is_kept(engine: Engine) -> None:
    runtime = GatedRuntime()
    runtime.failures = 1
    lane = make_lane(runtime)
    deadline = time.monotonic() + 0.2
    busy = GatedRuntime()
    hold_device(engine, busy, make_lane(busy))
    futures = [engine.submit(engine.admit(lane, deadline), window()) for _ in range(2)]
    busy.gate.set()
    assert runtime.entered.wait(10)
    time.sleep(max(0.0, deadline - time.monotonic()) + 0.01)
    runtime.gate.set()
    assert [type(future.exception(10)).__name__ for future in futures] == ["DeadlineError"] * 2
    assert runtime.calls == [2]


def test_a_stuck_device_is_noticed_at_the_door(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = GatedRuntime()
    lane = make_lane(runtime)
    held = hold_device(engine, runtime, lane)
    engine.check_room(lane)
    monkeypatch.setattr(worker, "STUCK_SECONDS", 0.0)
    with pytest.raises(WorkerStuckError, match="device 0 has been busy"):
        engine.check_room(lane)
    runtime.gate.set()
    held.result(10)
    engine.submit(engine.admit(lane), window()).result(10)
    monkeypatch.undo()
    engine.check_room(lane)


async def test_a_stuck_device_turns_the_server_unready(
    server: tuple[httpx.AsyncClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = server
    runtime = GatedRuntime()
    held = hold_device(service.engine, runtime, make_lane(runtime))
    monkeypatch.setattr(worker, "STUCK_SECONDS", 0.0)
    sentence = check_error(await client.get("/readyz"), 503, "not_ready")
    assert "device" not in sentence
    check_error(await client.post("/classify", content=b"never read"), 503, "not_ready")
    assert (await client.get("/livez")).status_code == 200
    monkeypatch.undo()
    runtime.gate.set()
    held.result(10)
    assert (await client.get("/readyz")).status_code == 200


class EndingRuntime(FakeRuntime):
    """Its process ends at each of the next `ends` batches."""

    ends = 0

    def run(self, waveforms: np.ndarray, lengths: np.ndarray, batches: int = 1) -> BatchResult:
        self.ends -= 1
        if self.ends >= 0:
            raise ProcessEndedError("the process ended")
        return super().run(waveforms, lengths, batches)


@pytest.mark.parametrize(("ends", "answered"), [(1, True), (2, False)])
def test_a_window_alone_is_tried_again_once_when_its_process_ended(engine: Engine, ends: int, answered: bool) -> None:
    runtime = EndingRuntime(classes=4)
    runtime.ends = ends
    future = engine.submit(engine.admit(make_lane(runtime)), window())
    wait([future], 10)
    assert (future.exception() is None) == answered
