"""Exports are made once, by a process of its own, under a name that holds all they depend on."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from export import command
from export.command import DRIFTS as DRIFTS_THERE
from export.errors import ParityError
from export.folder import EXPORTABLE as EXPORTED_THERE
from export.folder import FORMAT
from model.checkpoint import Checkpoint
from model.labels import LabelSet
from server import exports
from server.exports import DRIFTS, EXPORTABLE, cached_folder, get_export, is_export, open_export, run_export
from server.golden import GOLDEN_TOLERANCE
from server.runtimes.exported import PRECISIONS, read_export
from server.serving_errors import BrokenExportError, RuntimeDriftError, RuntimeUnavailableError

ExportOf = Callable[[str, str], Path]


def test_both_rooms_mean_the_same_backbones_and_format(export_of: ExportOf) -> None:
    assert EXPORTABLE == EXPORTED_THERE
    assert DRIFTS == DRIFTS_THERE
    assert read_export(export_of("onnx", "int8")).about["format"] == FORMAT
    assert set(PRECISIONS) == GOLDEN_TOLERANCE.keys()


def test_an_export_opens_as_its_checkpoint_less_the_network(small_ast: Checkpoint, export_of: ExportOf) -> None:
    folder = export_of("onnx", "int8")
    assert is_export(folder)
    assert not is_export(small_ast.folder)
    opened = open_export(read_export(folder))
    assert opened.config == small_ast.config
    assert opened.weights_sha256 == small_ast.weights_sha256
    assert opened.labels.mids == small_ast.labels.mids


def test_the_cached_name_changes_with_all_it_depends_on(
    small_ast: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(checkpoint: Checkpoint = small_ast, target: str = "onnx", precision: str = "int8") -> str:
        return cached_folder(tmp_path, checkpoint, target, precision, "cpu").name

    names = {name(), name(replace(small_ast, weights_sha256="f" * 64)), name(target="openvino"), name(precision="x")}
    heads = replace(small_ast.config, backbone_config={**small_ast.config.backbone_config, "heads": 4})
    names.add(name(replace(small_ast, config=heads)))  # the same weights, and another graph
    fewer = LabelSet.from_mids(small_ast.labels.mids[:-1])
    names.add(name(replace(small_ast, labels=fewer)))
    warier = replace(small_ast.config, thresholds={small_ast.labels.mids[0]: 0.9})
    assert name(replace(small_ast, config=warier)) in names  # no export knows thresholds
    monkeypatch.setattr(exports, "installed_version", lambda _: "99.0")
    names.add(name())
    monkeypatch.setattr(exports.torch.cuda, "is_available", lambda: True)
    for gpu in ("NVIDIA H200", "NVIDIA L4"):
        monkeypatch.setattr(exports.torch.cuda, "get_device_name", lambda _, gpu=gpu: gpu)
        names.add(name(target="tensorrt"))
    assert len(names) == 9


def test_a_cached_export_is_not_made_again(
    small_ast: Checkpoint, export_of: ExportOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[str]] = []

    def make(command: list[str], device: str) -> None:
        made.append(command)
        shutil.copytree(export_of("onnx", "int8"), command[4])

    monkeypatch.setattr(exports, "run_export", make)
    for _ in range(2):
        export = get_export(small_ast.folder, small_ast, "onnx", "int8", "cpu", tmp_path)
    assert export.precision == "int8"
    assert len(made) == 1
    assert made[0][1:4] == ["-m", "export.command", str(small_ast.folder)]


def zero_a_sector(file: Path) -> None:
    """As a disk that lost one: 4 KiB in the middle."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(4096)
    file.write_bytes(content)


@pytest.mark.parametrize("damage", ['{"format": 1}', "half a fi", '"source_weights_sha256": "0000', "sector"])
def test_a_cached_export_that_cannot_be_used_is_made_anew(
    small_ast: Checkpoint, export_of: ExportOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Left by an older Hark, cut off, or of other weights: it stood in the way at every start.

    One whose model had lost a sector was served, or refused at every start, and never made again.
    """
    folder = cached_folder(tmp_path, small_ast, "onnx", "int8", "cpu")
    shutil.copytree(export_of("onnx", "int8"), folder)
    about = (folder / "export.json").read_text()
    other_weights = about.replace('"source_weights_sha256": "', damage)
    if damage == "sector":
        zero_a_sector(folder / "model.onnx")
    else:
        (folder / "export.json").write_text(other_weights if "sha256" in damage else damage)
    monkeypatch.setattr(
        exports, "run_export", lambda command, _: shutil.copytree(export_of("onnx", "int8"), command[4])
    )
    export = get_export(small_ast.folder, small_ast, "onnx", "int8", "cpu", tmp_path)
    assert export.weights_sha256 == small_ast.weights_sha256
    assert (folder / "export.json").read_text() == about
    assert (folder / "model.onnx").read_bytes() == (export_of("onnx", "int8") / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("onnx", "model.onnx"),
        ("openvino", "model.xml"),
        ("openvino", "model.bin"),
        ("onnx", "config.json"),
        ("onnx", "labels.json"),
        ("onnx", "golden.safetensors"),
    ],
)
def test_an_export_with_a_changed_or_missing_file_is_refused(
    export_of: ExportOf, tmp_path: Path, target: str, name: str
) -> None:
    """What is off by less than the golden check's tolerance was served: scores moved by 0.05."""
    folder = tmp_path / "export"
    shutil.copytree(export_of(target, "int8"), folder)
    (folder / "README.md").write_text("# my words\n")
    assert read_export(folder).folder == folder
    zero_a_sector(folder / name)
    with pytest.raises(BrokenExportError, match=f"{name} is not as it was exported"):
        read_export(folder)
    (folder / name).unlink()
    with pytest.raises(BrokenExportError, match=f"{name} cannot be read"):
        read_export(folder)


@pytest.mark.parametrize(
    "wrong",
    [
        {"runtime": "foo"},
        {"runtime": ["onnx"]},
        {"runtime": "tensorrt"},
        {"precision": "fp8"},
        {"precision": [2]},
        {"source_weights_sha256": 3},
        {"compile": [1]},
        {"compile": {"threads": 1}},
        {"versions": "1.0"},
        {"files": []},
        {"files": {}},
    ],
)
def test_a_description_with_a_value_that_no_runtime_understands_is_refused(
    export_of: ExportOf, tmp_path: Path, wrong: dict[str, object]
) -> None:
    """Each was found out where it was used, and stopped the server; an unknown runtime was taken for ONNX."""
    folder = tmp_path / "export"
    shutil.copytree(export_of("onnx", "int8"), folder)
    about = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps({**about, **wrong}))
    with pytest.raises(BrokenExportError, match="no description"):
        read_export(folder)


@pytest.mark.parametrize("about", ["", "{}", '{"format": 1}', "[]", f'{{"format": {FORMAT}}}'])
def test_a_folder_that_does_not_describe_itself_is_refused(tmp_path: Path, about: str) -> None:
    (tmp_path / "export.json").write_text(about)
    with pytest.raises(BrokenExportError):
        read_export(tmp_path)


def test_a_golden_clip_that_cannot_be_read_is_refused(export_of: ExportOf, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    shutil.copytree(export_of("onnx", "int8"), folder)
    export = read_export(folder)
    os.truncate(folder / "golden.safetensors", 100)
    with pytest.raises(BrokenExportError):
        open_export(export)


def test_what_the_process_says_last_is_the_reason() -> None:
    script = "import sys; print('hark: working', file=sys.stderr); print('hark: no luck', file=sys.stderr); sys.exit(1)"
    with pytest.raises(RuntimeUnavailableError, match="failed: no luck"):
        run_export([sys.executable, "-c", script], "cpu")
    with pytest.raises(RuntimeUnavailableError, match="code 4"):
        run_export([sys.executable, "-c", "import sys; sys.exit(4)"], "cpu")


def test_an_export_that_drifts_as_it_is_made_is_told_from_one_that_fails(
    small_ast: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is remembered; after a full disk, say, the next start tries again."""

    def drift(*_: object) -> None:
        raise ParityError("the export moves a score")

    monkeypatch.setattr(command, "export", drift)
    code = command.main([str(small_ast.folder), str(tmp_path / "out")])
    script = f"import sys; print('hark: the export moves a score', file=sys.stderr); sys.exit({code})"
    with pytest.raises(RuntimeDriftError, match=r"^the export moves a score$"):
        run_export([sys.executable, "-c", script], "cpu")


def test_a_process_that_hangs_is_ended() -> None:
    with pytest.raises(RuntimeUnavailableError):
        run_export([sys.executable, "-c", "import time; time.sleep(60)"], "cpu", seconds=0.2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_said(small_ast: Checkpoint, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(RuntimeUnavailableError, match="HARK_RUNTIME_FOLDER"):
        get_export(small_ast.folder, small_ast, "onnx", "int8", "cpu", tmp_path / "cache")


def test_a_cache_that_is_a_file_is_said(small_ast: Checkpoint, tmp_path: Path) -> None:
    blocked = tmp_path / "cache"
    blocked.write_text("in the way")
    with pytest.raises(RuntimeUnavailableError, match="HARK_RUNTIME_FOLDER"):
        get_export(small_ast.folder, small_ast, "onnx", "int8", "cpu", blocked)


def test_only_the_plans_gpu_is_shown_to_the_process_that_builds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert (exports._environment("cuda:1") or {})["CUDA_VISIBLE_DEVICES"] == "5"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert (exports._environment("cuda:1") or {})["CUDA_VISIBLE_DEVICES"] == "1"
    assert exports._environment("cpu") is None
