"""Whose turn it is: requests in turn, interactive before batch, and nobody waits for ever."""

from dataclasses import replace

import numpy as np
import pytest

from server import fair_queue
from server.cost_model import CostModel
from server.fair_queue import FairQueue, Item, Job, Priority
from server.lane import Lane
from server.runtimes.fake import FakeRuntime
from tests.server.gated import Clock, make_lane


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(fair_queue, "time", clock)
    return clock


@pytest.fixture
def queue() -> FairQueue:
    return FairQueue()


def put(queue: FairQueue, lane: Lane, name: str, windows: int, priority: Priority = "interactive") -> Job:
    job = Job(lane, None, name, priority)
    queue.add_job(job)
    for _ in range(windows):
        queue.push(Item(job, np.zeros(1, np.float32), fair_queue.time.monotonic()))
    return job


def take(queue: FairQueue, windows: int = 4, device: int = 0) -> str:
    """The requests of the next batch's items, in order."""
    return "".join(item.job.request_id for item in queue.take(device, lambda _: windows)[0])


def test_batch_priority_waits_for_every_interactive_item(queue: FairQueue, clock: Clock) -> None:
    lane = make_lane(FakeRuntime(4))
    put(queue, lane, "b", 3, "batch")
    put(queue, lane, "A", 2)
    put(queue, lane, "B", 3)
    assert [take(queue), take(queue), take(queue)] == ["ABAB", "Bbbb", ""]


def test_batch_priority_gets_one_turn_whenever_it_has_waited_long(queue: FairQueue, clock: Clock) -> None:
    lane = make_lane(FakeRuntime(4))
    put(queue, lane, "b", 9, "batch")
    put(queue, lane, "A", 30)
    assert take(queue) == "AAAA"
    clock.now += fair_queue.BATCH_AGEING_SECONDS + 1
    assert [take(queue), take(queue)] == ["AbAA", "AAAA"]
    clock.now += fair_queue.BATCH_AGEING_SECONDS + 1
    assert [take(queue), take(queue)] == ["AbAA", "AAAA"]


def test_a_plan_takes_nothing_and_is_what_comes(queue: FairQueue) -> None:
    lane, other = make_lane(FakeRuntime(4)), make_lane(FakeRuntime(4))
    put(queue, lane, "A", 3)
    put(queue, other, "x", 1)
    put(queue, lane, "B", 1)
    planned = queue.plan(0, lambda _: 3)
    assert "".join(item.job.request_id for item in planned) == "ABA"
    assert planned == queue.plan(0, lambda _: 3) == queue.take(0, lambda _: 3)[0]
    assert [take(queue), take(queue)] == ["x", "A"], "whoever was passed over kept the head of the line"


def test_predictions_follow_the_turns(queue: FairQueue) -> None:
    lane = make_lane(FakeRuntime(4), batch_windows=1)
    lane.cost.observe(1, 1.0)
    put(queue, lane, "A", 5)
    put(queue, lane, "B", 2)
    put(queue, lane, "c", 0)  # admitted, its first window still being decoded
    put(queue, lane, "d", 4, "batch")
    assert queue.seconds_before_newcomer("interactive") == pytest.approx(3)
    assert queue.seconds_before_newcomer("batch") == pytest.approx(9)
    assert queue.predicted_seconds == pytest.approx(12)


def test_what_is_left_is_nothing(queue: FairQueue, clock: Clock) -> None:
    lane = make_lane(FakeRuntime(4))
    jobs = [put(queue, lane, "A", 3), put(queue, lane, "b", 3, "batch")]
    clock.now += fair_queue.BATCH_AGEING_SECONDS + 1
    take(queue, 1)
    for job in jobs:
        queue.remove_job(job)
    assert not queue.has_work(0)
    assert queue.audio_seconds == 0
    assert queue.jobs == set()


def make_linear() -> Lane:
    """A batch of two takes twice as long as one."""
    lane = replace(make_lane(FakeRuntime(4)), cost=CostModel())
    for windows in (1, 2):
        lane.cost.observe(windows, 1.0 * windows)
    return lane


def test_where_batching_gains_little_newcomers_have_every_other_batch(queue: FairQueue) -> None:
    lane = make_linear()
    put(queue, lane, "L", 9)
    assert take(queue, 2) == "LL"
    put(queue, lane, "A", 1)
    put(queue, lane, "B", 2)
    assert [take(queue, 2), take(queue, 2)] == ["AB", "LB"], "both at once, and then in turn"
    put(queue, lane, "C", 1)
    assert [take(queue, 2), take(queue, 2)] == ["C", "LL"]
    for name in "DEFG":
        put(queue, lane, name, 1)
    assert [take(queue, 2) for _ in range(3)] == ["DE", "LF", "G"], "however many come, the long one has its turn"


def test_where_batching_gains_much_nobody_rides_alone(queue: FairQueue) -> None:
    lane = replace(make_lane(FakeRuntime(4)), cost=CostModel())
    for windows in (1, 8):
        lane.cost.observe(windows, 1.0 + 0.1 * windows)
    put(queue, lane, "L", 9)
    assert take(queue, 2) == "LL"
    put(queue, lane, "A", 1)
    put(queue, lane, "b", 1, "batch")
    assert take(queue, 9) == "LALLLLLLb"


def test_where_batching_gains_little_batch_priority_fills_no_interactive_batch(queue: FairQueue) -> None:
    lane = make_linear()
    put(queue, lane, "b", 3, "batch")
    put(queue, lane, "A", 1)
    assert [take(queue, 2), take(queue, 2)] == ["A", "bb"]


def test_a_worker_that_only_makes_ready_waits_for_a_crowd(queue: FairQueue) -> None:
    runtime = FakeRuntime(4)
    runtime.ready_batches = 1
    lane = make_lane(*[runtime] * 3)
    put(queue, lane, "A", 9)
    put(queue, lane, "B", 9)
    assert [queue.has_work(device) for device in range(4)] == [True, True, False, False]
    assert take(queue, device=2) == ""
    put(queue, lane, "C", 1)
    assert [queue.has_work(device) for device in range(4)] == [True, True, True, False]
    assert take(queue, device=2) == "ABCA"
    assert not queue.has_work(2), "C had its only turn"


def test_a_model_that_is_served_no_more_is_forgotten(queue: FairQueue) -> None:
    lane = make_lane(FakeRuntime(4))
    put(queue, lane, "A", 1)
    left, cancelled = put(queue, lane, "B", 2), put(queue, lane, "C", 1)
    cancelled.waiting[0].future.cancel()
    queue.remove_job(left)
    assert take(queue) == "A"
    assert not queue.waiting
    assert not any(queue._reserved.values())


def test_a_promoted_request_comes_before_a_newcomer_with_one_window_only(queue: FairQueue, clock: Clock) -> None:
    lane = make_linear()
    put(queue, lane, "b", 9, "batch")
    put(queue, lane, "A", 3)
    before = queue.seconds_before_newcomer("batch")
    clock.now += fair_queue.BATCH_AGEING_SECONDS + 1
    take(queue, 1)  # A has three windows and b one, of which one is taken
    after = queue.seconds_before_newcomer("batch")
    assert [round(seconds / lane.cost.predict(1, 1)) for seconds in (before, after)] == [4, 3]
