"""What a real GPU must survive: memory that runs out, two models side by side, an error in the middle of a batch."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import load
from model.pipeline import tag
from model.registry import find_checkpoint
from server.lane import Lane
from server.runtimes.base import DeviceOutOfMemoryError
from server.runtimes.torch_runtime import TorchRuntime
from server.served_models import load_models
from server.settings import Settings

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
DOG = Path("server/page/samples/dog.ogg")


def lane_of(batch_windows: int) -> Lane:
    checkpoint = load(find_checkpoint("aum-tiny"), "cuda")
    runtime = TorchRuntime(checkpoint, "cuda")
    config = checkpoint.config
    return Lane(
        config.name,
        (runtime,),
        config.window_samples,
        config.features.sample_rate,
        len(checkpoint.labels),
        batch_windows,
    )


@contextmanager
def little_memory(share: float) -> Iterator[None]:
    """Inside, this process may use `share` of the GPU's memory."""
    torch.cuda.set_per_process_memory_fraction(share)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_golden_clip_holds_and_answers_are_the_pipelines(precision):
    models = load_models(Settings(models=["aum-tiny"], device="cuda", precision=precision))
    info = models["aum-tiny"].info
    assert (info.device, info.precision) == ("cuda", precision)
    assert info.scan in ("mamba_ssm", "triton")
    offline = tag(DOG, load(find_checkpoint("aum-tiny")))
    served = tag(DOG, load(find_checkpoint("aum-tiny"), "cuda"))
    assert [scored.mid for scored in served.labels[:1]] == [scored.mid for scored in offline.labels[:1]]
    np.testing.assert_allclose(served.scores, offline.scores, atol=1e-3)


def test_a_batch_that_does_not_fit_says_so_and_a_smaller_one_runs():
    lane = lane_of(batch_windows=4096)
    second = np.zeros(lane.window_samples, np.float32)
    with little_memory(0.01):
        with pytest.raises(DeviceOutOfMemoryError):
            lane.run([second] * 4096)
        assert lane.run([second]).logits.shape == (1, lane.classes)


def test_two_models_share_one_device(tmp_path):
    models = load_models(Settings(models=["aum-tiny", "ast-tiny"], device="cuda", runtime="torch"))
    window = np.zeros(models["aum-tiny"].lane.window_samples, np.float32)
    assert all(np.isfinite(model.lane.run([window]).logits).all() for model in models.values())


ILLEGAL = """
    import numpy as np, torch
    from model.checkpoint import load
    from model.registry import find_checkpoint
    from server.runtimes.base import DeviceLostError
    from server.runtimes.torch_runtime import TorchRuntime

    checkpoint = load(find_checkpoint("aum-tiny"), "cuda")
    runtime = TorchRuntime(checkpoint, "cuda")
    torch.zeros(1, device="cuda")[torch.tensor([7], device="cuda")]  # out of range: the device asserts
    try:
        runtime.run(np.zeros((1, 80000), np.float32), np.array([80000]))
    except DeviceLostError:
        print("lost")
"""


def test_an_illegal_access_is_a_lost_device():
    """In a process of its own, because CUDA repeats the error at every later call."""
    command = [sys.executable, "-c", textwrap.dedent(ILLEGAL)]
    assert "lost" in subprocess.run(command, capture_output=True, text=True, check=False).stdout
