"""A DeiT as the start of an AST."""

from dataclasses import replace

import pytest
import torch

from model.backbones.ast_model import AST, ASTConfig
from model.convert.deit import initialise_from_deit, square_side
from model.convert.errors import TensorMismatchError, WrongFamilyError
from tests.golden import assert_close, load_golden

CONFIG = ASTConfig(classes=4, frames=128, width=6, depth=1, heads=2)


def deit() -> dict[str, torch.Tensor]:
    """The golden case's tokens and kernel, with a random block of the same width around them."""
    golden = load_golden("ast_pos_embed")
    torch.manual_seed(0)
    rest = {
        name: torch.randn_like(tensor)
        for name, tensor in AST(CONFIG).state_dict().items()
        if name.startswith(("blocks.", "norm.", "cls_token", "dist_token"))
    }
    given = {name.removeprefix("deit."): golden[name] for name in golden.tensors if name.startswith("deit.")}
    return rest | given | {"head.weight": torch.ones(1000, 6), "head_dist.bias": torch.ones(1000)}


@pytest.mark.parametrize("case", range(5))
def test_positions_and_kernel_are_those_of_the_official_constructor(case):
    golden = load_golden("ast_pos_embed")
    given = golden.config["from_imagenet"][case]
    config = replace(CONFIG, frames=given["input_tdim"], stride_mels=given["fstride"], stride_frames=given["tstride"])
    network = AST(config)
    initialise_from_deit(network, deit())
    assert_close(network.pos_embed, golden[f"imagenet{case}.pos_embed"])
    assert_close(network.patch_embed.proj.weight, golden["imagenet.patch_embed.proj.weight"])


def test_everything_but_the_head_is_copied():
    network = AST(CONFIG)
    head = network.head[1].weight.clone()
    given = deit()
    initialise_from_deit(network, given)
    assert torch.equal(network.blocks[0].attn.qkv.weight, given["blocks.0.attn.qkv.weight"])
    assert torch.equal(network.head[1].weight, head)


def test_a_deit_of_another_size_is_refused():
    with pytest.raises(TensorMismatchError, match=r"lacks tensors: blocks\.1"):
        initialise_from_deit(AST(replace(CONFIG, depth=2)), deit())


def test_an_ast_is_no_deit():
    with pytest.raises(WrongFamilyError, match="an AST"):
        initialise_from_deit(AST(CONFIG), load_golden("ast_official_sc").state)


@pytest.mark.parametrize("patches", [-1, 0, 575])
def test_only_square_tables_are_taken(patches):
    with pytest.raises(TensorMismatchError, match="no square grid"):
        square_side(patches)
