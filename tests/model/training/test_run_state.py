"""The state of a run on disk: whole or not at all, and only for the run that it belongs to."""

import errno
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from model.training.identity import Identity
from model.training.recipe import RecipeError
from model.training.run_state import (
    Run,
    claim_folder,
    kept_weights,
    read_state,
    resume_run,
    save_run,
    start_run,
)
from tests.model.training.tiny_runs import tiny_recipe

ROOT = Path(__file__).parents[3]
ME = Identity("me", {"training": "a1"})


def _run() -> Run:
    network = torch.nn.Linear(3, 2)
    return start_run(network, torch.optim.AdamW(network.parameters()), tiny_recipe())


@contextmanager
def _full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    run = _run()
    run.network(torch.randn(1, 3)).sum().backward()
    run.optimizer.step()
    run.step, run.epoch_step, run.losses, run.random = 7, 3, [0.5], [torch.get_rng_state()]
    run.mean, run.mean_count, run.plateau.best = {"w": torch.ones(1)}, 2, 0.25
    save_run(run, ME, None, tmp_path)
    other = _run()
    assert resume_run(other, ME, None, tmp_path, "cpu")
    assert torch.equal(other.network.weight, run.network.weight)
    assert (other.step, other.epoch_step, other.losses, other.mean_count) == (7, 3, [0.5], 2)
    assert other.plateau == run.plateau
    assert torch.equal(other.random[0], run.random[0])
    state = other.optimizer.state_dict()["state"]
    assert torch.equal(state[0]["exp_avg"], run.optimizer.state_dict()["state"][0]["exp_avg"])


def test_a_full_disk_is_one_sentence_and_the_state_before_stays(tmp_path: Path) -> None:
    run = _run()
    save_run(run, ME, None, tmp_path)
    before = (tmp_path / "last.pt").read_bytes()
    with (
        _full_disk(500),
        pytest.raises(OSError, match=r"could not be saved .* the state saved before it is kept") as caught,
    ):
        save_run(run, ME, None, tmp_path)
    assert caught.value.filename == str(tmp_path / "last.pt")
    assert (tmp_path / "last.pt").read_bytes() == before
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["last.pt", "log.jsonl"]
    (tmp_path / "empty").mkdir()
    with _full_disk(500), pytest.raises(OSError, match="nothing was saved before it"):
        save_run(run, ME, None, tmp_path / "empty")


def test_another_runs_state_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    run = _run()
    assert not resume_run(run, ME, None, tmp_path, "cpu")
    save_run(run, ME, None, tmp_path)
    with pytest.raises(RecipeError, match="another recipe, other labels or other clips"):
        resume_run(run, Identity("you"), None, tmp_path, "cpu")
    with pytest.raises(RecipeError, match="no state of a run"):
        read_state(tmp_path / "nowhere")


def test_a_state_keeps_the_checksums_and_an_older_one_gets_them(tmp_path: Path) -> None:
    """States saved before there were checksums go on; from their next save on they are bound by them."""
    run = _run()
    save_run(run, Identity("me"), None, tmp_path)
    older = read_state(tmp_path)
    del older["checksums"]
    torch.save(older, tmp_path / "last.pt")
    assert resume_run(run, ME, None, tmp_path, "cpu")
    save_run(run, ME, None, tmp_path)
    with pytest.raises(RecipeError, match="labels of the clips to train on have changed"):
        resume_run(run, Identity("me", {"training": "b2"}), None, tmp_path, "cpu")


def test_a_damaged_state_is_refused_with_a_remedy(tmp_path: Path) -> None:
    """Torch compares no checksum, and answers other files with KeyError or the advice to read them unsafely."""
    run = _run()
    save_run(run, ME, None, tmp_path)
    path = tmp_path / "last.pt"
    whole = path.read_bytes()
    damaged = [whole[:-300], b"", b"hello world", bytes(1000), pickle.dumps({"identity": 1})]
    weight = whole.index(run.network.weight.detach().numpy().tobytes())
    damaged.append(whole[:weight] + bytes([whole[weight] ^ 1]) + whole[weight + 1 :])
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(RecipeError, match=r"last\.pt cannot be read: it is damaged, .* remove it to begin anew"):
            read_state(tmp_path)
    torch.save([1, 2], path)
    with pytest.raises(RecipeError, match="no state of a run"):
        read_state(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RecipeError, match=r"last\.pt cannot be read: Is a directory"):
        read_state(tmp_path)


def test_a_folder_belongs_to_one_run_at_a_time(tmp_path: Path) -> None:
    """Two that wrote the same state at once left a mixture of both."""
    with claim_folder(tmp_path), pytest.raises(RecipeError, match="another process trains in"), claim_folder(tmp_path):
        pass
    with claim_folder(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


def test_a_killed_process_lets_go_of_its_folder(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from model.training.run_state import claim_folder\n"
    code += "with claim_folder(Path(sys.argv[1])):\n print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RecipeError, match=r"another process trains in .*; stop it, or"), claim_folder(tmp_path):
            pass
        other.kill()
    with claim_folder(tmp_path):
        pass


def test_a_disk_without_locks_holds_runs_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(FileLock, "acquire", lambda *_, **__: refuse(errno.ENOLCK))
    with claim_folder(tmp_path):
        pass
    monkeypatch.setattr(FileLock, "acquire", lambda *_, **__: refuse(errno.EACCES))
    with pytest.raises(OSError, match="Permission denied"), claim_folder(tmp_path):
        pass


def test_the_kept_weights_are_the_recipes_choice() -> None:
    state = {"average": 1, "network": 2, "mean": 3, "best": 4}
    assert [kept_weights(state, keep) for keep in ("ema", "last", "mean", "best")] == [1, 2, 3, 4]
