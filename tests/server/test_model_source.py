"""Which checkpoints may be loaded while serving: names, and folders below the root; nothing else is even looked at."""

from pathlib import Path

import pytest

from server.model_pool import ModelLoadError
from server.model_source import load_source, resolve_source
from server.settings import Settings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("models/mine", "models/deep/er", "outside"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "config.json").write_text("{}")
    (tmp_path / "models/link-out").symlink_to(tmp_path / "outside")
    (tmp_path / "models/link-in").symlink_to(tmp_path / "models/mine")
    (tmp_path / "models/circle").symlink_to(tmp_path / "models/circle")
    (tmp_path / "models/empty").mkdir()
    return tmp_path / "models"


@pytest.mark.parametrize("source", ["mine", "./mine", "deep/er", "deep/../mine", "link-in"])
def test_folders_below_the_root(root: Path, source: str) -> None:
    assert Path(resolve_source(source, root)) in (root / "mine", root / "deep/er")


def test_a_full_path_below_the_root(root: Path) -> None:
    assert resolve_source(str(root / "mine"), root) == str(root / "mine")


@pytest.mark.parametrize(
    "source", ["../outside", "link-out", "circle", "empty", "nope", ".", "..", "/", "mine\0", "mine/config.json", "~"]
)
def test_everything_else_gets_one_and_the_same_answer(root: Path, source: str) -> None:
    outside = source if source != "../outside" else str(root.parent / "outside")
    for tried in {source, outside}:
        with pytest.raises(ModelLoadError, match="nor a checkpoint folder below the root"):
            resolve_source(tried, root)


@pytest.mark.parametrize("source", ["a" * 300, "a/" * 3000])
def test_a_source_longer_than_any_file_name_is_refused_as_well(root: Path, source: str) -> None:
    """The system's "File name too long" went to the caller as an internal error."""
    with pytest.raises(ModelLoadError, match="nor a checkpoint folder below the root"):
        resolve_source(source, root)


def test_a_folder_whose_file_is_a_link_out_of_the_root_is_refused(root: Path) -> None:
    """The folder lay below the root, its README.md led to any file of the machine, and /models showed that as card."""
    (root / "mine/labels.json").symlink_to(root / "deep/er/config.json")
    assert resolve_source("mine", root) == str(root / "mine")
    (root / "mine/README.md").symlink_to(root.parent / "outside/config.json")
    with pytest.raises(ModelLoadError, match="nor a checkpoint folder below the root"):
        resolve_source("mine", root)


def test_without_a_root_only_names(root: Path) -> None:
    assert resolve_source("aum-tiny", None) == "aum-tiny"
    with pytest.raises(ModelLoadError, match="HARK_MODEL_ROOT"):
        resolve_source(str(root / "mine"), None)


def test_a_broken_checkpoint_is_explained(root: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"'mine' cannot be served: .*config\.json"):
        load_source("mine", Settings(model_root=root, device="cpu"))
