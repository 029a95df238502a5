"""The same sound gets the same scores from the bundled model, whoever shares its batch: those of `pipeline.tag`.

Random companies, orders, queue lengths, batch sizes and thread counts go through the engine and the torch runtime.
"""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.checkpoint import Checkpoint, load
from model.pipeline import tag
from model.registry import find_checkpoint
from model.scores import logits_to_scores
from server.engine import Engine
from server.lane import Lane
from server.runtimes.torch_runtime import TorchRuntime
from tests.server.gated import make_engine

TOLERANCE = 1e-4
SECONDS = (0.02, 0.3, 1.25, 1.3, 2.6, 4.999, 5.0)  # below one frame, and around each length that is padded to

companies = st.lists(st.integers(0, len(SECONDS) - 1), min_size=1, max_size=7)


@cache
def checkpoint() -> Checkpoint:
    return load(find_checkpoint("aum-tiny"))


@cache
def clip(number: int) -> np.ndarray:
    """Noise of changing loudness with a tone, of the length of this number."""
    samples = round(SECONDS[number] * 16_000)
    times = np.arange(samples) / 16_000
    noise = np.random.default_rng(number).normal(0, 0.05, samples) * (1 + np.sin(3 * times))
    return (noise + 0.2 * np.sin(2 * np.pi * 300 * (number + 1) * times)).astype(np.float32)


@cache
def expected(number: int) -> np.ndarray:
    return tag(clip(number), checkpoint()).scores[0]


@pytest.fixture(scope="module", params=[1, 2])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine whose worker computes with so many threads."""
    for number in range(len(SECONDS)):
        expected(number)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    engine = make_engine()
    yield engine
    engine.stop(0)
    torch.set_num_threads(before)


def make_lane(batch_windows: int) -> Lane:
    loaded = checkpoint()
    return Lane("aum-tiny", (TorchRuntime(loaded, "cpu"),), 80_000, 16_000, len(loaded.labels), batch_windows)


def score_together(engine: Engine, lane: Lane, numbers: list[int], requests: int) -> np.ndarray:
    """Scores (W, C) of these clips, queued at one moment by so many requests in turn."""
    jobs = [engine.admit(lane) for _ in range(requests)]
    with engine._changed:  # the worker sees none before all are there
        futures = [engine.submit(jobs[i % requests], clip(number)) for i, number in enumerate(numbers)]
    logits = np.stack([future.result(60).logits for future in futures])
    for job in jobs:
        engine.release(job)
    return logits_to_scores(logits, checkpoint().config.activation)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=companies, requests=st.integers(1, 3), batch_windows=st.sampled_from([1, 2, 5, 16]))
def test_scores_do_not_depend_on_company_place_queue_or_threads(
    engine: Engine, numbers: list[int], requests: int, batch_windows: int
) -> None:
    scores = score_together(engine, make_lane(batch_windows), numbers, requests)
    for number, row in zip(numbers, scores, strict=True):
        np.testing.assert_allclose(row, expected(number), rtol=0, atol=TOLERANCE)


@settings(max_examples=4, deadline=None)
@given(numbers=companies, place=st.integers(0, 6))
def test_neither_do_embeddings(numbers: list[int], place: int) -> None:
    runtime = make_lane(8).runtime
    clips = [clip(number) for number in numbers]
    clips.insert(min(place, len(clips)), clip(4))
    lane = make_lane(8)
    together = lane.run(clips).embeddings[min(place, len(numbers))]
    alone = runtime.run(clip(4)[None], np.array([len(clip(4))])).embeddings[0]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-3 * np.abs(alone).max())


def test_the_tolerance_can_fail() -> None:
    """Scores of neighbouring clips differ by far more than the tolerance, so a swapped row could not pass."""
    rows = [expected(number) for number in range(len(SECONDS))]
    distances = [np.abs(a - b).max() for i, a in enumerate(rows) for b in rows[:i]]
    assert min(distances) > 20 * TOLERANCE
