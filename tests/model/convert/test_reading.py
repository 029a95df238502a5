"""Reading published files: every container and wrapping, and one clear error for everything else."""

import argparse
import os
import sys
import types

import pytest
import torch
from safetensors.torch import save_file

from model.convert.errors import BrokenWeightsError, TensorMismatchError, UnreadableFileError, UnsafePickleError
from model.convert.reading import read_source

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}


class _RunsCode:
    """Pickles as a call of os.system."""

    def __reduce__(self):
        return os.system, ("touch /tmp/hark-was-here",)


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def assert_read(path):
    tensors = read_source(path).tensors
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_of_both_formats(tmp_path, suffix, zipped):
    assert_read(saved(tmp_path / f"weights{suffix}", TENSORS, _use_new_zipfile_serialization=zipped))


def test_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "weights.safetensors")
    assert_read(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_hugging_face_folder_with_its_settings(tmp_path, name):
    save_file(TENSORS, tmp_path / name) if name.endswith("s") else torch.save(TENSORS, tmp_path / name)
    (tmp_path / "config.json").write_text('{"hidden_size": 3}')
    assert_read(tmp_path)
    source = read_source(tmp_path)
    assert source.config == {"hidden_size": 3}
    assert source.preprocessor is None


def test_the_prefix_of_data_parallel_is_stripped(tmp_path):
    assert_read(saved(tmp_path / "w.pth", {f"module.{name}": tensor for name, tensor in TENSORS.items()}))


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_a_state_dict_among_other_things(tmp_path, key):
    assert_read(saved(tmp_path / "w.pth", {key: TENSORS, "epoch": 3, "optimizer": {"lr": 0.1}}))


def test_parameters_and_half_precision_become_float32(tmp_path):
    path = saved(tmp_path / "w.pth", {"a": torch.nn.Parameter(torch.ones(2, dtype=torch.float16))})
    tensor = read_source(path).tensors["a"]
    assert tensor.dtype == torch.float32
    assert not tensor.requires_grad


def test_the_arguments_of_a_training_run_are_skipped(tmp_path, monkeypatch):
    """SSAM's files hold an argparse namespace with an ml_collections config, which need not be installed."""
    module = types.ModuleType("ml_collections.config_dict.config_dict")
    module.ConfigDict = type("ConfigDict", (), {"__module__": module.__name__})
    for name in ("ml_collections", "ml_collections.config_dict", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    config = module.ConfigDict()
    config.fields = {"lr": 0.1}
    path = saved(tmp_path / "w.pth", {"model": TENSORS, "args": argparse.Namespace(config=config, epochs=100)})
    monkeypatch.undo()
    assert_read(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, zipped):
    path = saved(tmp_path / "w.pth", {"model": TENSORS, "x": _RunsCode()}, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafePickleError, match=r"would run code when read \(\w+\.system\)"):
        read_source(path)
    assert not os.path.exists("/tmp/hark-was-here")


def test_nan_and_infinity_are_named(tmp_path):
    path = saved(tmp_path / "w.pth", {**TENSORS, "bad": torch.tensor([1.0, float("nan")])})
    with pytest.raises(BrokenWeightsError, match="NaN or infinity: bad"):
        read_source(path)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_one_clear_error(tmp_path, name, kept):
    path = tmp_path / name
    save_file(TENSORS, path) if name.endswith("s") else torch.save(TENSORS, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UnreadableFileError, match="truncated or not a"):
        read_source(path)


@pytest.mark.parametrize("content", [b"not a checkpoint", b"PK\x03\x04 nor a zip", b"\x80\x02]q\x00."])
def test_other_bytes_are_one_clear_error(tmp_path, content):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError):
        read_source(path)


@pytest.mark.parametrize("content", [[1, 2], {}, torch.ones(3), {"model": {}}])
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    with pytest.raises(UnreadableFileError, match="no state dict"):
        read_source(saved(tmp_path / "w.pth", content))


def test_entries_that_are_not_tensors_are_named(tmp_path):
    with pytest.raises(TensorMismatchError, match="not tensors: epoch"):
        read_source(saved(tmp_path / "w.pth", {**TENSORS, "epoch": 3}))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UnreadableFileError, match="does not exist"):
        read_source(tmp_path / "nothing.pth")
    with pytest.raises(UnreadableFileError, match=r"neither model\.safetensors nor pytorch_model\.bin"):
        read_source(tmp_path)
