"""Fixtures of several rooms: a small AST with random weights, and its exports, each made once per run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from model.checkpoint import Checkpoint
from tests.small import save_small


@pytest.fixture(scope="session")
def small_ast(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save_small(tmp_path_factory.mktemp("checkpoints") / "ast", "ast")


@pytest.fixture(scope="session")
def small_aum(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save_small(tmp_path_factory.mktemp("checkpoints") / "aum", "aum")


@pytest.fixture(scope="session")
def export_of(small_ast: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The folder of the small AST's export to a target in a precision; tests must not change it."""
    root = tmp_path_factory.mktemp("exports")

    def export(target: str, precision: str) -> Path:
        folder = root / f"{target}-{precision}"
        if not folder.exists():
            if target == "onnx":
                from export.to_onnx import to_onnx as make
            else:
                from export.to_openvino import to_openvino as make
            make(small_ast, folder, precision)
        return folder

    return export
