"""Official AST files to our AST."""

import pytest
import torch

from model.backbones.ast_model import AST
from model.convert.errors import MissingFlagError, TensorMismatchError, WrongFamilyError
from model.convert.geometry import Hints
from model.convert.official_ast import convert
from model.convert.reading import Source
from tests.golden import FIXTURES, assert_close, load_golden


def source(state: dict[str, torch.Tensor]) -> Source:
    return Source(FIXTURES, state)


@pytest.mark.parametrize("name", ["ast_official", "ast_official_sc"])
def test_sizes_are_inferred_and_the_numbers_are_official(name):
    golden = load_golden(name)
    converted = convert(source(golden.state), Hints(heads=golden.config["num_heads"]))
    config = converted.config
    assert (config.classes, config.width) == (golden.config["label_dim"], golden.config["embed_dim"])
    assert (config.frames, config.grid) == (golden.config["input_tdim"], tuple(golden.config["grid"]))
    network = AST(config).eval()
    network.load_state_dict(converted.state)
    with torch.inference_mode():
        assert_close(network(golden["input"]), golden["logits"])


def test_only_imagenets_unused_heads_are_left_out():
    converted = convert(source(load_golden("ast_official_sc").state), Hints(heads=4))
    assert set(converted.left_out) == {
        f"v.{head}.{part}" for head in ("head", "head_dist") for part in ("weight", "bias")
    }


def test_the_number_of_heads_is_asked_for():
    with pytest.raises(MissingFlagError, match="say --heads"):
        convert(source(load_golden("ast_official_sc").state), Hints())


@pytest.mark.parametrize("name", ["v.norm.bias", "v.blocks.1.attn.qkv.weight", "mlp_head.1.weight", "v.pos_embed"])
def test_a_missing_tensor_is_named(name):
    state = dict(load_golden("ast_official_sc").state)
    del state[name]
    ours = name.removeprefix("v.").replace("mlp_head", "head")
    with pytest.raises(TensorMismatchError, match=f"lacks tensors: {ours}"):
        convert(source(state), Hints(heads=4))


def test_an_unknown_tensor_is_named():
    state = load_golden("ast_official_sc").state | {"v.blocks.0.gamma": torch.ones(1)}
    with pytest.raises(TensorMismatchError, match=r"unknown tensors: v\.blocks\.0\.gamma"):
        convert(source(state), Hints(heads=4))


def test_a_frame_model_is_sent_to_ssast():
    with pytest.raises(WrongFamilyError, match="use --from ssast"):
        convert(source(load_golden("ssast_frame").state), Hints(heads=2))


def test_another_family_is_sent_to_its_own_converter():
    with pytest.raises(WrongFamilyError, match=r"an AuM .* use --from aum"):
        convert(source(load_golden("aum_bibi").state), Hints())
