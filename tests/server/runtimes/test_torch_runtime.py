"""How torch batches share a CPU's cores, and that this changes no score."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from model.checkpoint import Checkpoint
from server.runtimes.torch_runtime import MOST_BATCHES, TorchRuntime


@pytest.fixture(autouse=True)
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_a_batch_alone_has_all_cores_and_one_beside_others_has_one(small_aum: Checkpoint) -> None:
    runtime = TorchRuntime(small_aum, "cpu")
    waveforms, lengths = noise(small_aum, 1)
    threads = []
    for batches in (2, 1, 3, 9):
        runtime.run(waveforms, lengths, batches)
        threads.append(torch.get_num_threads())
    assert threads == [1, 4, 1, 1]


@pytest.mark.parametrize(("threads", "batches"), [(1, 1), (2, 2), (MOST_BATCHES, MOST_BATCHES), (64, 1)])
def test_batches_run_side_by_side_on_few_cores(small_aum: Checkpoint, threads: int, batches: int) -> None:
    torch.set_num_threads(threads)
    assert TorchRuntime(small_aum, "cpu").most_batches == batches


def test_batches_side_by_side_have_the_scores_of_one_alone(small_aum: Checkpoint) -> None:
    runtime = TorchRuntime(small_aum, "cpu")
    inputs = [noise(small_aum, seed) for seed in range(8)]
    alone = [runtime.run(*batch).logits for batch in inputs]
    with ThreadPoolExecutor(2) as pool:
        beside = list(pool.map(lambda batch: runtime.run(*batch, 2).logits, inputs))
    assert np.allclose(alone, beside, atol=1e-4)


def noise(checkpoint: Checkpoint, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch of two windows."""
    samples = checkpoint.config.window_samples
    waveforms = np.random.default_rng(seed).normal(0, 0.1, (2, samples)).astype(np.float32)
    return waveforms, np.array([samples, samples // 2])
