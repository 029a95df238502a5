"""From a published file to a checkpoint folder that loads and gives the published numbers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model import checkpoint
from model.convert.conversion import FORMATS, Flags, convert_checkpoint
from model.convert.errors import ConversionError, LabelsError, MissingFlagError
from model.convert.geometry import Hints
from model.convert.reading import Source
from server.workshop import SourceFormat
from tests.golden import FIXTURES, assert_close, load_golden

CASES = [
    ("hf-ast", "ast_hf_sc", Flags(dataset="audioset"), "input_values"),
    ("ast", "ast_official_sc", Flags(Hints(heads=4)), "input"),
    ("aum", "aum_bibi", Flags(), "input"),
    ("ssast", "ssast_frame", Flags(Hints(heads=2)), "input"),
]


def published(tmp_path, name):
    """Write a golden case as its authors would have published it."""
    state = load_golden(name).state
    if not name.startswith("ast_hf"):
        path = tmp_path / f"{name}.pth"
        torch.save({f"module.{key}": tensor for key, tensor in state.items()}, path)
        return path
    folder = tmp_path / "hub"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    config = json.loads((FIXTURES / f"{name}.config.json").read_text())
    config["id2label"] = {str(index): f"sound {index}" for index in range(10)}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(
        '{"mean": -4.2677393, "std": 4.5689974, "do_normalize": true, "sampling_rate": 16000, "max_length": 128}'
    )
    return folder


@pytest.mark.parametrize(("format_name", "name", "flags", "given"), CASES, ids=[case[0] for case in CASES])
def test_every_format_becomes_a_checkpoint_with_its_own_numbers(tmp_path, format_name, name, flags, given):
    golden = load_golden(name)
    convert_checkpoint(format_name, published(tmp_path, name), tmp_path / "out", flags)
    loaded = checkpoint.load(tmp_path / "out")
    with torch.inference_mode():
        assert_close(loaded.network(golden[given]), golden["logits"])
        assert_close(loaded.network(loaded.features(loaded.golden.waveform[None]))[0], loaded.golden.logits)
    assert len(loaded.labels) == golden["logits"].shape[1]
    assert "sha256" in loaded.card


DAMAGES = {
    "missing": lambda state, name: {other: tensor for other, tensor in state.items() if other != name},
    "reshaped": lambda state, name: state | {name: state[name].flatten()[None, :, None]},
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("format_name", "name", "heads"),
    [
        ("hf-ast", "ast_hf_sc", 4),
        ("ast", "ast_official_sc", 4),
        ("aum", "aum_bibi", None),
        ("ssam", "ssam_pretrain", None),
        ("ssam", "ssast_yadav_encoder", 2),
        ("ssast", "ssast_patch_pretrain", 2),
    ],
)
def test_whichever_tensor_is_damaged_there_is_one_clear_error(format_name, name, heads, damage):
    state = load_golden(name).state
    for tensor in state:
        if not tensor.startswith("v.head"):  # ImageNet's, which nobody uses
            with pytest.raises(ConversionError):
                FORMATS[format_name].convert(Source(FIXTURES, DAMAGES[damage](state, tensor)), Hints(heads=heads))


@pytest.mark.parametrize("name", ["ssam_pretrain", "ssast_frame_pretrain"])
def test_a_pretrained_network_becomes_a_checkpoint_without_classes(tmp_path, name):
    convert_checkpoint(name.split("_")[0], published(tmp_path, name), tmp_path / "out", Flags(Hints(heads=2)))
    loaded = checkpoint.load(tmp_path / "out")
    waveform = torch.zeros(1, loaded.config.window_samples)
    with torch.inference_mode():
        assert loaded.network(loaded.features(waveform)).shape == (1, 0)
        assert loaded.network.embed(loaded.features(waveform)).ndim == 2
    assert len(loaded.labels) == 0


def test_a_hugging_face_folder_brings_labels_and_statistics(tmp_path):
    convert_checkpoint("hf-ast", published(tmp_path, "ast_hf_sc"), tmp_path / "out")
    config = checkpoint.load(tmp_path / "out").config
    assert (config.features.mean, config.features.std) == (-4.2677393, 4.5689974)
    assert (config.features.frames, config.features.subtract_waveform_mean) == (128, False)
    assert checkpoint.load(tmp_path / "out").labels.names[3] == "sound 3"


def test_an_official_file_takes_the_statistics_of_its_data_set(tmp_path):
    convert_checkpoint("ast", published(tmp_path, "ast_official_sc"), tmp_path / "out", Flags(Hints(heads=4)))
    features = checkpoint.load(tmp_path / "out").config.features
    assert (features.mean, features.std, features.subtract_waveform_mean) == (-6.845978, 5.5654526, True)


def test_a_csv_names_the_classes(tmp_path):
    csv = tmp_path / "labels.csv"
    csv.write_text("name\n" + "".join(f"class {index}\n" for index in range(35)))
    flags = Flags(labels=csv, dataset="voxceleb", activation="sigmoid", name="mine")
    convert_checkpoint("aum", published(tmp_path, "aum_bibi"), tmp_path / "out", flags)
    loaded = checkpoint.load(tmp_path / "out")
    assert (loaded.name, loaded.labels.names[34], loaded.config.activation) == ("mine", "class 34", "sigmoid")


def test_a_wrong_number_of_labels_is_refused(tmp_path):
    csv = tmp_path / "labels.csv"
    csv.write_text("name\none\ntwo\n")
    with pytest.raises(LabelsError, match="35 outputs but there are 2 labels"):
        convert_checkpoint("aum", published(tmp_path, "aum_bibi"), tmp_path / "out", Flags(labels=csv))
    assert not (tmp_path / "out").exists()


def test_unknown_classes_need_flags(tmp_path):
    with pytest.raises(MissingFlagError, match="9 classes; say --labels"):
        convert_checkpoint("aum", published(tmp_path, "aum_resample"), tmp_path / "out")
    with pytest.raises(MissingFlagError, match="do not come with Hark; say --labels"):
        convert_checkpoint("aum", published(tmp_path, "aum_resample"), tmp_path / "out", Flags(dataset="vggsound"))
    with pytest.raises(MissingFlagError, match="--from midi is unknown"):
        convert_checkpoint("midi", tmp_path, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [('{"do_normalize": false}', "normalisation off"), ('{"sampling_rate": 8000}', "16000 Hz"), ("[]", "JSON object")],
)
def test_a_front_end_that_is_not_asts_is_refused(tmp_path, change, message):
    folder = published(tmp_path, "ast_hf_sc")
    (folder / "preprocessor_config.json").write_text(change)
    with pytest.raises(ConversionError, match=message):
        convert_checkpoint("hf-ast", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_softmax_where_the_config_says_one_label_per_clip(tmp_path):
    folder = published(tmp_path, "ast_hf_sc")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"problem_type": "single_label_classification"}))
    convert_checkpoint("hf-ast", folder, tmp_path / "out")
    assert checkpoint.load(tmp_path / "out").config.activation == "softmax"


def test_json_files_beside_another_familys_weights_are_not_believed(tmp_path: Path) -> None:
    """An early version took the statistics and labels of whatever lay in the same folder of downloads."""
    path = published(tmp_path, "aum_fobi")
    (path.parent / "config.json").write_text(
        '{"id2label": {"0": "a", "1": "b"}, "problem_type": "single_label_classification"}'
    )
    (path.parent / "preprocessor_config.json").write_text('{"mean": -1.0, "std": 2.0}')
    convert_checkpoint("aum", path, tmp_path / "out")
    config = checkpoint.load(tmp_path / "out").config
    assert config.features.mean == pytest.approx(-4.2677393)
    assert config.activation == "sigmoid"


def test_the_command_offers_every_format() -> None:
    assert {item.value for item in SourceFormat} == set(FORMATS)
