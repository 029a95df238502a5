"""The page on adding a backbone is true: its own blocks are run, from a published file to tags."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from model import checkpoint
from model.convert.conversion import FORMATS, Flags, Format, convert_checkpoint
from model.convert.errors import TensorMismatchError
from model.pipeline import tag
from model.registry import BACKBONES, Backbone

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-backbone.md"


def _load_module(name: str, source: str, folder: Path) -> None:
    path = folder / f"{name}.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


@pytest.fixture(scope="module", autouse=True)
def added(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Do what the page says: a module, a registry line, a converter."""
    network, line, converter, row = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    folder = tmp_path_factory.mktemp("added")
    _load_module("model.backbones.dscnn_model", network, folder)
    exec(line, {"BACKBONES": BACKBONES, "Backbone": Backbone})
    _load_module("model.convert.dscnn", converter, folder)
    exec(row, {"FORMATS": FORMATS, "Format": Format, "dscnn": sys.modules["model.convert.dscnn"]})
    yield
    del BACKBONES["dscnn"], FORMATS["dscnn"]
    del sys.modules["model.backbones.dscnn_model"], sys.modules["model.convert.dscnn"]


def _published(folder: Path, **more: torch.Tensor) -> Path:
    """A file as its authors would have written it: width 8, two blocks, three classes."""
    torch.manual_seed(0)
    state = {"features.0.weight": torch.randn(8, 1, 3, 3), "features.0.bias": torch.randn(8)}
    for block in (1, 2):
        state |= {
            f"features.{block}.conv1.weight": torch.randn(8, 1, 3, 3),
            f"features.{block}.conv1.bias": torch.randn(8),
            f"features.{block}.conv2.weight": torch.randn(8, 8, 1, 1),
            f"features.{block}.conv2.bias": torch.randn(8),
            f"features.{block}.bn.weight": torch.rand(8),
            f"features.{block}.bn.bias": torch.randn(8),
            f"features.{block}.bn.running_mean": torch.randn(8),
            f"features.{block}.bn.running_var": torch.rand(8) + 0.5,
            f"features.{block}.bn.num_batches_tracked": torch.tensor(7),
        }
    state |= {"classifier.weight": torch.randn(3, 8), "classifier.bias": torch.randn(3)}
    torch.save({**state, **more}, folder / "cnn.pth")
    return folder / "cnn.pth"


def test_the_added_backbone_converts_loads_and_tags(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("mid,display_name\n/m/0bt9lr,Dog\n/m/09x0r,Speech\n/m/06mb1,Rain\n")
    flags = Flags(labels=tmp_path / "labels.csv", dataset="audioset")
    path = _published(tmp_path, **{"teacher.weight": torch.zeros(3)})
    converted = convert_checkpoint("dscnn", path, tmp_path / "dscnn", flags)
    assert converted.left_out == ("teacher.weight",)
    loaded = checkpoint.load(tmp_path / "dscnn")
    tagging = tag(np.random.default_rng(0).standard_normal(24000).astype(np.float32), loaded, top_k=3)
    assert len(tagging.windows) == 2
    assert {scored.label for scored in tagging.labels} == {"Dog", "Speech", "Rain"}


def test_a_tensor_that_the_table_does_not_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TensorMismatchError, match="surprise"):
        convert_checkpoint("dscnn", _published(tmp_path, surprise=torch.zeros(3)), tmp_path / "dscnn")
