"""One loop: a killed run goes on exactly, processes share a run, gradients accumulate, and nothing is lost."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from model.training import hardware
from model.training import loop as loop_module
from model.training.finetune import finetune
from model.training.hardware import check_share
from model.training.loop import DivergedError
from model.training.recipe import Machine, Recipe, RecipeError
from model.training.run_state import read_state
from model.training.strict import build
from tests.model.training.killed_run import make_recipe
from tests.model.training.tiny_runs import AST, quiet, read_log, tiny_recipe, write_corpus

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("sounds"))


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    state = read_state(folder)
    return {f"{part}.{name}": tensor for part in ("network", "average") for name, tensor in state[part].items()}


def _equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("step", "saved"), [(7, 6), (11, 9)])
def test_a_run_killed_in_an_epoch_ends_as_if_it_had_not_been(
    manifest: Path, tmp_path: Path, step: int, saved: int
) -> None:
    """Killed by SIGKILL a step or two after a save in the middle of an epoch, it takes the same next batches."""
    command = [
        sys.executable,
        "-m",
        "tests.model.training.killed_run",
        str(manifest),
        str(tmp_path / "killed"),
        str(step),
    ]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert killed.returncode == -9, killed.stderr.decode()
    assert read_state(tmp_path / "killed")["step"] == saved
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed = finetune(make_recipe(), manifest, tmp_path / "killed", quiet)
        whole = finetune(make_recipe(), manifest, tmp_path / "whole", quiet)
    finally:
        torch.set_num_threads(threads)
    assert read_log(tmp_path / "killed") == read_log(tmp_path / "whole")
    assert _equal(_weights(tmp_path / "killed"), _weights(tmp_path / "whole"))
    assert _equal(resumed.mean, whole.mean)
    assert resumed.step == 12


def test_a_recipe_gives_the_same_numbers_twice(manifest: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        finetune(tiny_recipe(2), manifest, tmp_path / name, quiet)
    assert read_log(tmp_path / "first") == read_log(tmp_path / "second")
    assert _equal(_weights(tmp_path / "first"), _weights(tmp_path / "second"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.slow
@pytest.mark.timeout(900)  # two processes must be started, however busy the machine is
def test_two_processes_give_what_one_gives(manifest: Path, tmp_path: Path) -> None:
    """Gloo, data-parallel, the same micro-batches: they differ by the order of one float32 addition per gradient."""
    recipe = {**yaml.safe_load(_RECIPE), "micro_batch": 4}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "server.cli", "finetune", str(path), "--manifest", str(manifest)]
    command += ["--out", str(tmp_path / "out"), "--run", str(tmp_path / "two"), "--devices", "2", "--no-tensorboard"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": str(_free_port())}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.decode().count('"epoch"') == 2, "one process speaks for both"
    finetune(build(Recipe, recipe), manifest, tmp_path / "one", quiet)
    one, two = _weights(tmp_path / "one"), _weights(tmp_path / "two")
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    first, second = read_log(tmp_path / "one"), read_log(tmp_path / "two")
    assert [line["loss"] for line in second] == pytest.approx([line["loss"] for line in first], abs=1e-4)


_RECIPE = """
name: tiny
backbone: aum
backbone_config: {mels: 32, frames: 32, width: 16, depth: 1}
features: {kind: fbank, mels: 32, frames: 32, mean: -6.0, std: 5.0}
window_seconds: 0.3
epochs: 2
batch: 8
learning_rate: 1.0e-3
mask_mels: 4
mask_frames: 4
precision: float32
machine: {accelerator: cpu}
"""


def test_accumulated_micro_batches_are_one_step_each_batch(manifest: Path, tmp_path: Path) -> None:
    run = finetune(tiny_recipe(1, micro_batch=2), manifest, tmp_path, quiet)
    assert run.step == 4


def test_gradients_of_micro_batches_are_averaged(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without augmentation the two halves of a batch give the gradient of the whole."""
    gradients: dict[int, torch.Tensor] = {}
    plain = {"roll": False, "gain_decibels": 0.0, "random_place": False, "mixup_probability": 0.0, "mask_mels": 0}
    plain |= {"mask_frames": 0, "backbone": "ast", "backbone_config": AST}
    for size in (8, 4):
        recipe = tiny_recipe(1, micro_batch=size, **plain)

        def keep(parameters: object, *_: object, size: int = size) -> torch.Tensor:
            gradient = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[attr-defined]
            return gradients.setdefault(size, gradient).norm()

        monkeypatch.setattr(loop_module.nn.utils, "clip_grad_norm_", keep)
        finetune(recipe, manifest, tmp_path / str(size), quiet)
    torch.testing.assert_close(gradients[4], gradients[8], rtol=1e-4, atol=1e-5)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_state(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def broken(self: loop_module.Loop, batches: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            self._mean(torch.tensor(float("nan")))
        step(self, batches)  # type: ignore[arg-type]

    step = loop_module.Loop._step
    monkeypatch.setattr(loop_module.Loop, "_step", broken)
    with pytest.raises(DivergedError, match="loss became nan in step 3"):
        finetune(tiny_recipe(1, save_steps=2), manifest, tmp_path, quiet)
    assert read_state(tmp_path)["step"] == 2


def test_a_gradient_that_is_no_number_never_reaches_the_weights(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss may be finite still; the weights saved after such a step would be lost for good."""
    lengths = iter([1.0, 1.0, float("inf")])
    monkeypatch.setattr(loop_module.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(next(lengths)))
    with pytest.raises(DivergedError, match="length of the gradient became inf in step 2"):
        finetune(tiny_recipe(1, save_steps=1), manifest, tmp_path, quiet)
    assert read_state(tmp_path)["step"] == 2


def test_devices_that_are_not_here_are_refused(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="16 CUDA devices are asked for"):
        finetune(tiny_recipe(batch=16, machine=Machine("cuda", 16)), manifest, tmp_path, quiet)
    with pytest.raises(RecipeError, match="float16 needs a GPU"):
        finetune(tiny_recipe(precision="float16", machine=Machine("cpu")), manifest, tmp_path, quiet)
    with pytest.raises(RecipeError, match="in micro-batches of 8 cannot be shared by 2 processes"):
        check_share(tiny_recipe(micro_batch=8), 2)


def test_measures_in_the_middle_of_an_epoch_and_the_best_epoch(manifest: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(3, measure_steps=2, keep="best", ema_decay=0.0, best_by="accuracy")
    lines: list[str] = []
    run = finetune(recipe, manifest, tmp_path, lines.append)
    assert [line[:9] for line in lines if "step" in line] == ['{"step": ', '{"step": ', '{"step": ']
    assert run.average is None
    assert run.best_value >= max(line["accuracy"] for line in read_log(tmp_path))
    assert run.best.keys() == run.network.state_dict().keys()


def test_measuring_can_wait_for_some_epochs_and_never_misses_the_last(manifest: Path, tmp_path: Path) -> None:
    finetune(tiny_recipe(3, measure_epochs=2), manifest, tmp_path, quiet)
    assert ["map" in line for line in read_log(tmp_path)] == [False, True, True]


def test_float16_scales_its_gradients_and_goes_on_with_the_scale(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused on a CPU because it is slow there; the code is the same, so it is tried on one."""
    monkeypatch.setattr(hardware, "_accelerator", lambda *_: "cpu")
    recipe = tiny_recipe(2, precision="float16", save_steps=3, backbone="ast", backbone_config=AST)
    finetune(recipe, manifest, tmp_path, quiet)
    assert read_state(tmp_path)["scaler"]["scale"] > 1
    whole = read_log(tmp_path)
    step = loop_module.Loop._step

    def interrupted(self: loop_module.Loop, batches: object) -> None:
        if self._run.step == 4:
            raise KeyboardInterrupt
        step(self, batches)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        patch.setattr(loop_module.Loop, "_step", interrupted)
        finetune(recipe, manifest, tmp_path / "parts", quiet)
    finetune(recipe, manifest, tmp_path / "parts", quiet)
    assert read_log(tmp_path / "parts") == whole
