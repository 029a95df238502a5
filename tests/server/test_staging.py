"""Stacking ahead is a cache of copies: whatever was prepared, the rows are those of the batch that was taken."""

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine import Engine
from server.fair_queue import Item, Job
from server.lane import Lane
from server.runtimes.fake import FakeRuntime
from server.staging import Staging
from tests.server.gated import RATE, GatedRuntime, hold_device, make_engine, make_lane, window

LANE = make_lane(FakeRuntime(4), batch_windows=16)


def item(number: int, lane: Lane = LANE) -> Item:
    """A window of its own length, full of its own number."""
    return Item(Job(lane, None, str(number)), window(number, samples=1 + number * 7 % lane.window_samples), 0.0)


def check(staging: Staging, items: list[Item]) -> None:
    batch, padded, lengths = staging.collect(items)
    assert sorted(map(id, batch)) == sorted(map(id, items))
    assert padded.shape == (len(items), items[0].job.lane.padded_samples([one.waveform for one in items]))
    for one, row, length in zip(batch, padded, lengths, strict=True):
        np.testing.assert_array_equal(row[:length], one.waveform)
        assert not row[length:].any()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 16)), min_size=1, max_size=6), st.randoms())
def test_any_preparation_gives_the_same_rows(batches: list[tuple[int, int]], dice: random.Random) -> None:
    staging = Staging()
    for prepared, taken in batches:
        items = [item(dice.randint(1, 40)) for _ in range(24)]
        staging.prepare(dice.sample(items, prepared))
        check(staging, dice.sample(items, taken))


def test_another_model_makes_its_own_rows() -> None:
    other = Lane("other", (FakeRuntime(4),), 250, RATE, 4, 20)
    staging = Staging()
    staging.prepare([item(n) for n in range(1, 5)])
    wide = [item(n, other) for n in range(1, 21)]
    staging.prepare(wide[:3])
    check(staging, wide)
    check(staging, [item(1)])


def test_large_batches_are_stacked_while_the_device_runs() -> None:
    engine: Engine = make_engine()
    runtime = GatedRuntime()
    lane = make_lane(runtime, batch_windows=16)
    hold_device(engine, runtime, lane)
    worker = engine._workers[0]
    jobs = [engine.admit(lane) for _ in range(3)]
    first = [engine.submit(job, window(value)) for job, value in zip(jobs, (0.1, 0.2, 0.3), strict=True)]
    worker._stager.submit(worker._prepare_next).result(10)
    assert len(worker._staging._rows) == 3
    engine.release(jobs[1])
    newcomer = engine.submit(engine.admit(lane), window(0.4))
    runtime.gate.set()
    assert [first[0].result(10).batch, first[2].result(10).batch, newcomer.result(10).batch] == [2, 2, 2]
    assert sorted(runtime.rows[1]) == [0.1, 0.3, 0.4], "a newcomer is in, whoever left is out"
    engine.stop(0)
