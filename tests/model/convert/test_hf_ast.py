"""Hugging Face AST files, by both generations of names, with and without their config.json."""

import json

import pytest
import torch

from model.backbones.ast_model import AST
from model.convert.errors import ConversionError, TensorMismatchError, WrongFamilyError
from model.convert.geometry import Hints
from model.convert.hf_ast import convert, join_attention
from model.convert.reading import Source
from tests.golden import FIXTURES, assert_close, load_golden


def settings(name: str) -> dict:
    return json.loads((FIXTURES / f"{name}.config.json").read_text())


def as_version_5(name: str) -> str:
    """Rename as transformers 5 does in memory."""
    for old, new in (
        ("encoder.layer.", "layers."),
        ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
    ):
        name = name.replace(old, new)
    return name


@pytest.mark.parametrize("rename", [str, as_version_5], ids=["4.x", "5.x"])
@pytest.mark.parametrize("name", ["ast_hf", "ast_hf_sc"])
def test_both_generations_of_names_give_the_same_numbers(name, rename):
    golden = load_golden(name)
    state = {rename(key): tensor for key, tensor in golden.state.items()}
    converted = convert(Source(FIXTURES, state, settings(name)), Hints())
    network = AST(converted.config).eval()
    network.load_state_dict(converted.state)
    with torch.inference_mode():
        assert_close(network(golden["input_values"]), golden["logits"])
        assert_close(network.embed(golden["input_values"]), golden["features"])
        assert_close(network.encode(golden["input_values"])[:, :8], golden["last_hidden_state_first8"])
    assert converted.left_out == ()


def test_without_a_config_the_published_geometry_and_epsilon_are_taken():
    config = convert(Source(FIXTURES, load_golden("ast_hf_sc").state), Hints(heads=4)).config
    assert (config.frames, config.stride, config.epsilon, config.head_epsilon) == (128, (10, 10), 1e-12, 1e-12)


def test_the_bare_network_gives_features_only():
    prefix = "audio_spectrogram_transformer."
    state = load_golden("ast_hf_sc").state
    bare = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    assert convert(Source(FIXTURES, bare), Hints(heads=4)).config.classes == 0


def test_query_key_and_value_are_stacked_in_this_order():
    parts = {
        f"blocks.0.attn.{part}.bias": torch.full((2,), float(i)) for i, part in enumerate(("query", "key", "value"))
    }
    assert join_attention(parts)["blocks.0.attn.qkv.bias"].tolist() == [0, 0, 1, 1, 2, 2]


def test_a_missing_key_is_named():
    state = dict(load_golden("ast_hf_sc").state)
    del state["audio_spectrogram_transformer.encoder.layer.1.attention.attention.key.bias"]
    with pytest.raises(TensorMismatchError, match=r"lacks tensors: blocks\.1\.attn\.key\.bias"):
        convert(Source(FIXTURES, state, settings("ast_hf_sc")), Hints())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "vit"}, "config.json is of a vit"),
        ({"hidden_act": "relu"}, "activation relu"),
        ({"max_length": "long"}, "'long' as max_length"),
        ({"max_length": 512}, "a table of 144 positions fits no input"),
    ],
)
def test_a_config_that_contradicts_is_refused(change, message):
    with pytest.raises(ConversionError, match=message):
        convert(Source(FIXTURES, load_golden("ast_hf_sc").state, settings("ast_hf_sc") | change), Hints())


def test_an_official_file_is_sent_to_its_own_converter():
    with pytest.raises(WrongFamilyError, match="use --from ast"):
        convert(Source(FIXTURES, load_golden("ast_official_sc").state), Hints())
