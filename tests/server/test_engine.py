"""The engine's promises: batching without a timer, turns between requests, refusals, failures, leaving and stopping."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait
from typing import Any

import numpy as np
import pytest

from server.caution import LEAST
from server.engine import (
    SOON_SECONDS,
    DeadlineError,
    Engine,
    EngineClosedError,
    InferenceFailedError,
    QueueFullError,
    Reception,
)
from server.lane import Lane
from server.runtimes.base import BatchResult
from server.runtimes.fake import FakeRuntime
from tests.server.gated import RATE, GatedRuntime, hold_device, make_engine, make_lane, window


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = make_engine()
    yield engine
    engine.stop(0)


def test_an_idle_device_starts_at_once_and_what_waits_meanwhile_is_batched(engine: Engine) -> None:
    runtime = GatedRuntime()
    lane = make_lane(runtime)
    futures = [hold_device(engine, runtime, lane)]
    futures += [engine.submit(engine.admit(lane), window(0.1 * i)) for i in range(1, 7)]
    runtime.gate.set()
    wait(futures, 10)
    assert runtime.calls == [1, 4, 2]
    assert [future.result().batch for future in futures] == [1, 2, 2, 2, 2, 3, 3]


def test_windows_that_come_together_go_together_to_an_idle_device(engine: Engine) -> None:
    """Queued one by one, the first of a clip's two windows was on the device before the second came."""
    runtime = GatedRuntime()
    runtime.gate.set()
    futures = engine.submit_all(engine.admit(make_lane(runtime)), [window(0.1), window(0.2)])
    wait(futures, 10)
    assert runtime.rows == [[0.1, 0.2]]


def test_scores_do_not_depend_on_the_batch_company(engine: Engine) -> None:
    runtime = GatedRuntime()
    runtime.gate.set()
    lane = make_lane(runtime)
    generator = np.random.default_rng(0)
    windows = [generator.standard_normal(length).astype(np.float32) for length in (1, 7, 50, 99, 100)]
    alone = [engine.submit(engine.admit(lane), w).result(10).logits for w in windows]
    runtime.gate.clear()
    hold_device(engine, runtime, lane)
    together = [engine.submit(engine.admit(lane), w) for w in windows]
    runtime.gate.set()
    for expected, future in zip(alone, together, strict=True):
        np.testing.assert_array_equal(expected, future.result(10).logits)


def test_requests_take_turns_so_that_a_short_one_overtakes_a_long_one(engine: Engine) -> None:
    runtime = GatedRuntime()
    lane = make_lane(runtime, batch_windows=2)
    hold_device(engine, runtime, lane)
    long, short = engine.admit(lane), engine.admit(lane)
    futures = [engine.submit(long, window(0.1)) for _ in range(4)]
    futures.append(engine.submit(short, window(0.2)))
    runtime.gate.set()
    wait(futures, 10)
    assert runtime.rows == [[0.9], [0.1, 0.2], [0.1, 0.1], [0.1]]


def test_turns_go_on_from_batch_to_batch(engine: Engine) -> None:
    runtime = GatedRuntime()
    lane = make_lane(runtime, batch_windows=2)
    hold_device(engine, runtime, lane)
    futures = []
    for value in (0.1, 0.2, 0.3):
        job = engine.admit(lane)
        futures += [engine.submit(job, window(value)) for _ in range(2)]
    runtime.gate.set()
    wait(futures, 10)
    assert runtime.rows[1:] == [[0.1, 0.2], [0.3, 0.1], [0.2, 0.3]]


def test_a_batch_is_brief_unless_a_crowd_waits(engine: Engine) -> None:
    runtime = GatedRuntime()
    lane = make_lane(runtime, batch_windows=3, brief_windows=1)
    lane.cost.observe = lambda *_: None  # type: ignore[method-assign]  # however long the first is held
    held = hold_device(engine, runtime, lane)
    crowd = [engine.submit(engine.admit(lane), window()) for _ in range(12)]
    runtime.gate.set()
    wait([held, *crowd], 10)
    assert runtime.calls == [1, 3, 2, *[1] * 7], "a quarter of the line, and one at least"


def test_a_batch_that_takes_long_stays_brief_in_a_crowd(engine: Engine) -> None:
    runtime = GatedRuntime()
    lane = make_lane(runtime, batch_windows=3, brief_windows=1)
    lane.cost.observe(1, 1.0)
    held = hold_device(engine, runtime, lane)
    crowd = [engine.submit(engine.admit(lane), window()) for _ in range(12)]
    runtime.gate.set()
    wait([held, *crowd[:2]], 10)
    assert runtime.calls[:2] == [1, 1]


def test_one_request_of_many_windows_is_no_crowd(engine: Engine) -> None:
    runtime = GatedRuntime()
    lane = make_lane(runtime, batch_windows=3, brief_windows=1)
    held = hold_device(engine, runtime, lane)
    long = engine.admit(lane)
    waiting = engine.submit_all(long, [window()] * 8)
    runtime.gate.set()
    wait([held, *waiting], 10)
    assert set(runtime.calls) == {1}


def test_models_share_the_device_but_never_a_batch(engine: Engine) -> None:
    first, second = GatedRuntime(), GatedRuntime()
    second.gate.set()
    lanes = make_lane(first, model="first"), make_lane(second, model="second")
    futures = [hold_device(engine, first, lanes[0])]
    futures += [engine.submit(engine.admit(lanes[i % 2]), window(0.1 * i)) for i in range(1, 6)]
    first.gate.set()
    wait(futures, 10)
    assert second.calls == [3]
    assert first.calls == [1, 2]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back() -> None:
    engine = make_engine(queue_audio_seconds=3)
    runtime = GatedRuntime()
    lane = make_lane(runtime, batch_windows=1)
    lane.cost.observe(1, 2.0)
    futures = [hold_device(engine, runtime, lane)]
    futures += [engine.submit(engine.admit(lane), window()) for _ in range(3)]
    for refuse in (engine.admit, engine.check_room):
        with pytest.raises(QueueFullError) as refusal:
            refuse(lane)
        assert refusal.value.reason == "full"
        assert refusal.value.retry_after_seconds == pytest.approx(8, abs=0.5)  # three waiting and one running, 2 s each
    runtime.gate.set()
    wait(futures, 10)
    assert engine.submit(engine.admit(lane), window()).result(10)
    engine.stop(0)


def test_an_admitted_request_keeps_room_for_its_first_window() -> None:
    engine = make_engine(queue_audio_seconds=2)
    lane = make_lane(FakeRuntime(4))
    first, _second = engine.admit(lane), engine.admit(lane)
    with pytest.raises(QueueFullError):
        engine.admit(lane)
    engine.release(first)
    assert engine.submit(engine.admit(lane), window()).result(10)
    engine.stop(0)


def test_more_requests_than_the_limit_are_refused() -> None:
    engine = make_engine(requests=1)
    lane = make_lane(FakeRuntime(4))
    engine.admit(lane)
    with pytest.raises(QueueFullError):
        engine.admit(lane)
    engine.stop(0)


def test_a_full_queue_leaves_each_request_one_window_at_a_time() -> None:
    engine = make_engine(queue_audio_seconds=2, windows_in_flight=8)
    runtime = GatedRuntime()
    lane = make_lane(runtime)
    hold_device(engine, runtime, lane)
    assert engine.room(outstanding=3) == 5
    job = engine.admit(lane)
    engine.submit(job, window())
    engine.submit(job, window())
    assert engine.room(outstanding=0) == 1
    assert engine.room(outstanding=2) == 0
    runtime.gate.set()
    engine.stop(0)


def test_a_request_that_cannot_meet_its_deadline_is_refused_at_the_door(engine: Engine) -> None:
    runtime = GatedRuntime()
    lane = make_lane(runtime, batch_windows=1)
    lane.cost.observe(1, 5.0)
    hold_device(engine, runtime, lane)
    engine.submit(engine.admit(lane), window())
    with pytest.raises(QueueFullError) as refusal:
        engine.admit(lane, deadline=time.monotonic() + 10)
    assert refusal.value.reason == "deadline"
    assert refusal.value.retry_after_seconds == pytest.approx(1.25 * 15 - 10, abs=0.5)
    engine.admit(lane, deadline=time.monotonic() + 25)
    runtime.gate.set()


def test_a_deadline_that_no_idle_server_could_meet_is_a_timeout(engine: Engine) -> None:
    """Come back later, which a full server says, would be bad advice: it had been 503 for 0.1 ms on an idle server."""
    runtime = GatedRuntime()
    lane = make_lane(runtime)
    with pytest.raises(DeadlineError):
        engine.admit(lane, deadline=time.monotonic() - 0.001)
    lane.cost.observe(1, 5.0)
    hold_device(engine, runtime, lane)
    with pytest.raises(DeadlineError, match=r"needs about 5\.00 s"):
        engine.admit(lane, deadline=time.monotonic() + 1)
    runtime.gate.set()


def test_an_idle_engine_lets_everybody_try(engine: Engine) -> None:
    """After one batch of 5 s, requests with 1 s to go were refused for ever: no batch ran, and no estimate changed."""
    lane = make_lane(FakeRuntime(4))
    lane.cost.observe(1, 5.0)
    job = engine.admit(lane, deadline=time.monotonic() + 1)
    assert engine.submit(job, window()).result(10)


def test_a_newcomer_is_predicted_one_round_and_not_the_whole_queue(engine: Engine) -> None:
    runtime = GatedRuntime()
    lane = make_lane(runtime, batch_windows=1)
    lane.cost.observe(1, 1.0)
    hold_device(engine, runtime, lane)
    long = engine.admit(lane)
    for _ in range(20):
        engine.submit(long, window())
    engine.admit(lane, deadline=time.monotonic() + 5)
    with pytest.raises(QueueFullError):
        engine.admit(lane, deadline=time.monotonic() + 5, priority="batch")
    runtime.gate.set()


def test_late_items_fail_before_the_batch_not_after(engine: Engine) -> None:
    runtime = GatedRuntime()
    lane = make_lane(runtime)
    hold_device(engine, runtime, lane)
    late = engine.submit(engine.admit(lane, deadline=time.monotonic() + 0.01), window(0.1))
    timely = engine.submit(engine.admit(lane, deadline=time.monotonic() + 60), window(0.2))
    time.sleep(0.02)
    runtime.gate.set()
    with pytest.raises(DeadlineError):
        late.result(10)
    assert timely.result(10)
    assert runtime.rows == [[0.9], [0.2]]


@pytest.mark.parametrize("leave", ["release", "cancel"])
def test_items_whose_caller_left_are_skipped(engine: Engine, leave: str) -> None:
    runtime = GatedRuntime()
    lane = make_lane(runtime)
    hold_device(engine, runtime, lane)
    job = engine.admit(lane)
    left, stays = engine.submit(job, window(0.1)), engine.submit(engine.admit(lane), window(0.2))
    if leave == "release":
        engine.release(job)
    else:
        left.cancel()
    runtime.gate.set()
    assert stays.result(10)
    with pytest.raises(CancelledError):
        left.result(10)
    assert runtime.rows == [[0.9], [0.2]]
    assert engine.queued_windows(lane) == 0


def test_a_failing_batch_fails_its_items_and_the_worker_lives_on(engine: Engine) -> None:
    runtime = FakeRuntime(4)
    runtime.failures = 1
    lane = make_lane(runtime)
    with pytest.raises(InferenceFailedError) as failure:
        engine.submit(engine.admit(lane), window()).result(10)
    assert isinstance(failure.value.__cause__, RuntimeError)
    assert engine.submit(engine.admit(lane), window()).result(10)


def test_logits_that_are_not_finite_fail_their_row_only(engine: Engine) -> None:
    runtime = GatedRuntime()
    runtime.broken_value = 0.25
    lane = make_lane(runtime)
    hold_device(engine, runtime, lane)
    broken, whole = (engine.submit(engine.admit(lane), window(value)) for value in (0.25, 0.5))
    runtime.gate.set()
    with pytest.raises(InferenceFailedError, match="not finite"):
        broken.result(10)
    assert whole.result(10)


def test_logits_of_another_shape_are_refused(engine: Engine) -> None:
    runtime = FakeRuntime(4)
    lane = Lane("fake", (runtime,), RATE, RATE, 5, 4)
    with pytest.raises(InferenceFailedError):
        engine.submit(engine.admit(lane), window()).result(10)


@pytest.mark.parametrize(
    "waveform", [np.zeros(0, np.float32), np.zeros(101, np.float32), np.zeros((1, 100), np.float32)]
)
def test_windows_of_a_wrong_shape_are_refused(engine: Engine, waveform: np.ndarray) -> None:
    job = engine.admit(make_lane(FakeRuntime(4)))
    with pytest.raises(ValueError, match="1 to 100 samples"):
        engine.submit(job, waveform)


def test_a_closed_door_lets_accepted_requests_finish(engine: Engine) -> None:
    lane = make_lane(FakeRuntime(4))
    job = engine.admit(lane)
    engine.close_door()
    with pytest.raises(EngineClosedError):
        engine.check_room(lane)
    assert engine.submit(job, window()).result(10)
    assert engine.submit(engine.admit(lane), window()).result(10), "its body was still coming when the door closed"


def test_stop_finishes_within_the_grace_period() -> None:
    engine = make_engine()
    runtime = FakeRuntime(4, batch_delay_seconds=0.05)
    lane = make_lane(runtime, batch_windows=1)
    jobs = [engine.admit(lane) for _ in range(3)]
    futures = [engine.submit(job, window()) for job in jobs]
    for job, future in zip(jobs, futures, strict=True):
        future.add_done_callback(lambda _, job=job: engine.release(job))
    assert engine.stop(grace_seconds=10)
    assert all(future.result() for future in futures)


def test_stop_cancels_what_is_not_done_in_time_and_refuses_the_rest() -> None:
    engine = make_engine()
    runtime = GatedRuntime()
    lane = make_lane(runtime)
    running = hold_device(engine, runtime, lane)
    job = engine.admit(lane)
    waiting = engine.submit(job, window())
    runtime.gate.set()
    assert not engine.stop(grace_seconds=0)
    with pytest.raises(EngineClosedError):
        waiting.result(10)
    assert running.result(10)
    for refused in (lambda: engine.submit(job, window()), lambda: engine.admit(lane)):
        with pytest.raises(EngineClosedError):
            refused()


def test_times_and_counts_reach_the_result_and_the_metrics(engine: Engine) -> None:
    runtime = GatedRuntime()
    runtime.batch_delay_seconds = 0.02
    lane = make_lane(runtime)
    hold_device(engine, runtime, lane)
    waiting = engine.submit(engine.admit(lane), window(samples=50))
    assert engine.queued_windows(lane) == 1
    time.sleep(0.05)
    runtime.gate.set()
    result = waiting.result(10)
    assert result.queue_seconds >= 0.05
    assert result.inference_seconds >= 0.02
    sample = engine._metrics.registry.get_sample_value
    assert sample("hark_windows_total", {"model": "fake"}) == 2
    assert sample("hark_audio_seconds_total", {"model": "fake"}) == 1.5
    assert sample("hark_batch_windows_count", {"model": "fake"}) == 2


def test_uploads_that_are_still_coming_count_among_the_requests() -> None:
    engine = make_engine(requests=1)
    lane = make_lane(FakeRuntime(4))
    first, second, stalls = object(), object(), object()
    engine.begin_reception(lane, first)
    with pytest.raises(QueueFullError):
        engine.begin_reception(lane, second)
    with pytest.raises(QueueFullError):
        engine.admit(lane, place=second)
    job = engine.admit(lane, place=first)  # takes its own place
    engine.end_reception(first)
    with pytest.raises(QueueFullError):
        engine.check_room(lane)
    engine.release(job)
    engine.begin_reception(lane, stalls)
    engine.end_reception(stalls)
    assert engine.submit(engine.admit(lane), window()).result(10)
    engine.stop(0)


def test_the_door_counts_who_is_about_to_be_admitted(engine: Engine) -> None:
    lane = make_lane(FakeRuntime(4))
    lane.cost.observe(1, 1.0)
    soon = time.monotonic() + 3  # two at most before it, a quarter added
    first, second = object(), object()
    engine.begin_reception(lane, first, soon)
    engine.begin_reception(lane, second, soon)
    with pytest.raises(QueueFullError):
        engine.check_room(lane, soon)
    job = engine.admit(lane, soon, place=first)  # nobody who comes after it is counted
    assert job.predicted_seconds == pytest.approx(1.0)
    engine.release(job)
    engine._receiving[second] = Reception(lane, "interactive", time.monotonic() - SOON_SECONDS)  # a slow upload
    engine.check_room(lane, soon)
    engine._receiving[first] = engine._receiving[second] = Reception(lane, "batch")
    engine.check_room(lane, soon)
    engine._receiving[first] = engine._receiving[second] = Reception(make_lane(FakeRuntime(4)), "interactive")
    engine.check_room(lane, soon)
    engine.end_reception(first)
    engine.end_reception(second)


def test_devices_work_side_by_side_and_share_what_waits(engine: Engine) -> None:
    first, second = GatedRuntime(), GatedRuntime()
    lane = make_lane(first, second, batch_windows=8)
    jobs = [engine.admit(lane) for _ in range(4)]
    while len(engine._idle) < 2:
        time.sleep(0.001)
    with engine._changed:  # all come at one moment
        futures = [engine.submit(job, window()) for job in jobs]
    for runtime in (first, second):
        assert runtime.entered.wait(10)
    first.gate.set()
    second.gate.set()
    wait(futures, 10)
    assert [len(rows) for rows in (*first.rows, *second.rows)] == [2, 2]
    assert len({future.result().batch for future in futures}) == 2


def test_a_batch_alone_is_always_the_first_workers(engine: Engine) -> None:
    """Only one thread may keep an OpenMP team: see `end_team` in `model/cpu_threads.py`."""
    runtime = FakeRuntime(4)
    lane = make_lane(runtime, runtime)
    workers = []
    ran = runtime.run

    def run(*arguments: Any) -> BatchResult:
        workers.append(threading.current_thread().name)
        return ran(*arguments)

    runtime.run = run  # type: ignore[method-assign]
    for _ in range(20):
        job = engine.admit(lane)
        while len(engine._idle) < 2:
            time.sleep(0.001)
        assert engine.submit(job, window()).result(10)
    assert set(workers) == {"hark-engine-0"}


def test_a_prediction_counts_only_the_workers_that_a_model_can_use(engine: Engine) -> None:
    other = FakeRuntime(4)
    assert engine.submit(engine.admit(make_lane(other, other)), window()).result(10)  # starts a second worker
    runtime = GatedRuntime()
    lane = make_lane(runtime, batch_windows=1)
    for _ in range(50):
        lane.cost.observe(1, 10.0)
    held = hold_device(engine, runtime, lane)
    job = engine.admit(lane)
    waiting = [engine.submit(job, window()) for _ in range(4)]
    assert engine.admit(lane).predicted_seconds > 25  # the one that runs, one of the other request, its own
    runtime.gate.set()
    wait([held, *waiting], 10)


def test_a_batch_knows_how_many_run_beside_it(engine: Engine) -> None:
    runtime = GatedRuntime()
    lane = make_lane(runtime, runtime, batch_windows=2)  # one device that gains from two batches at a time
    alone = hold_device(engine, runtime, lane)
    runtime.gate.set()
    assert alone.result(10)
    runtime.gate.clear()
    jobs = [engine.admit(lane) for _ in range(4)]
    while len(engine._idle) < 2:
        time.sleep(0.001)
    with engine._changed:  # all come at one moment
        futures = [engine.submit(job, window()) for job in jobs]
    while len(engine._idle):
        time.sleep(0.001)
    runtime.gate.set()
    wait(futures, 10)
    assert runtime.beside == [1, 2, 2]
    assert runtime.calls == [1, 2, 2], "what fits one batch is not cut up for two"


def test_idle_cores_with_processes_of_their_own_share_what_comes(engine: Engine) -> None:
    runtime = GatedRuntime()
    runtime.independent_batches = 2
    lane = make_lane(runtime, runtime, batch_windows=4)
    alone = hold_device(engine, runtime, lane)
    runtime.gate.set()
    assert alone.result(10)
    while len(engine._idle) < 2:
        time.sleep(0.001)
    runtime.gate.clear()
    both = engine.submit_all(engine.admit(lane), [window()] * 2)
    while len(engine._idle):
        time.sleep(0.001)
    runtime.gate.set()
    wait(both, 10)
    assert runtime.calls == [1, 1, 1]
    assert runtime.beside == [1, 2, 2]


def test_one_idle_core_does_not_share_with_those_that_only_make_ready(engine: Engine) -> None:
    runtime = GatedRuntime()
    runtime.independent_batches = runtime.ready_batches = 2
    lane = make_lane(*[runtime] * 4, batch_windows=4)
    held = hold_device(engine, runtime, lane)
    while len(engine._idle) < 3:
        time.sleep(0.001)
    clip = engine.submit_all(engine.admit(lane), [window()] * 2)
    while len(engine._idle) > 2:
        time.sleep(0.001)
    runtime.gate.set()
    wait([held, *clip], 10)
    assert sorted(runtime.calls) == [1, 2]


def test_a_device_runs_only_models_that_are_on_it(engine: Engine) -> None:
    both, only_first = FakeRuntime(4), GatedRuntime()
    wide, narrow = make_lane(FakeRuntime(4), both, model="wide"), make_lane(only_first, model="narrow")
    held = hold_device(engine, only_first, narrow)
    waiting = engine.submit(engine.admit(narrow), window(0.2))
    assert engine.submit(engine.admit(wide), window(0.1)).result(10), "the second device is free for it"
    assert both.calls == [1]
    assert not waiting.done()
    only_first.gate.set()
    wait([held, waiting], 10)
    assert only_first.rows == [[0.9], [0.2]]


def test_answers_that_came_late_make_the_door_careful(engine: Engine) -> None:
    runtime = GatedRuntime()
    lane = make_lane(runtime, batch_windows=1)
    lane.cost.observe(1, 1.0)
    hold_device(engine, runtime, lane)
    careless = engine.admit(lane, deadline=time.monotonic() + 3)  # one runs, one is its own: 2 s, and a quarter
    assert careless.predicted_seconds == pytest.approx(2, abs=0.5)
    careless.admitted -= 60
    late = engine.submit(careless, window())
    runtime.gate.set()
    late.result(10)
    while engine._caution.factor == LEAST:  # the answer is out before it is learnt from
        time.sleep(0.001)
    assert engine._caution.factor == pytest.approx(1.1 * LEAST, rel=0.05)
    for _ in range(20):
        engine._caution.observe(1.0, 60.0)
    runtime.gate.clear()
    runtime.entered.clear()
    hold_device(engine, runtime, make_lane(runtime))
    engine.submit(engine.admit(lane), window())
    needed = engine.admit(lane).predicted_seconds
    with pytest.raises(QueueFullError) as refusal:
        engine.admit(lane, deadline=time.monotonic() + 2.5 * needed)
    assert refusal.value.reason == "deadline"
    runtime.gate.set()
