"""Which parameters decay, and how fast each layer learns."""

import pytest
import torch

from model.registry import build_network
from model.training.optimizers import OptimizerConfig, layer_number, make_optimizer
from model.training.strict import FieldError
from tests.model.training.tiny_runs import AST, AUM


def _groups(config: OptimizerConfig, backbone: str = "ast", shape: dict = AST) -> dict[str, tuple[float, float]]:
    """Each parameter's (weight decay, learning rate scale)."""
    network = build_network(backbone, {**shape, "classes": 2})
    optimizer = make_optimizer(network, config, 1.0, 0.1)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(p)]: (g["weight_decay"], g["scale"]) for g in optimizer.param_groups for p in g["params"]}


def test_weights_alone_decay_by_default() -> None:
    decays = {name: decay for name, (decay, _) in _groups(OptimizerConfig(), "aum", AUM).items()}
    assert decays["layers.0.mixer.in_proj.weight"] == decays["patch_embed.proj.weight"] == 0.1
    assert {decays[name] for name in ("layers.0.mixer.A_log", "pos_embed.pos_embed", "cls_token", "norm_f.weight")} == {
        0
    }


def test_ssam_decays_everything_of_two_dimensions() -> None:
    decays = {name: decay for name, (decay, _) in _groups(OptimizerConfig(decay="matrices"), "aum", AUM).items()}
    assert decays["layers.0.mixer.A_log"] == decays["cls_token"] == 0.1
    assert decays["layers.0.mixer.D"] == decays["norm_f.weight"] == decays["head.bias"] == 0


def test_adams_penalty_is_on_everything() -> None:
    assert {decay for decay, _ in _groups(OptimizerConfig(kind="adam", decay="all")).values()} == {0.1}
    network = build_network("ast", {**AST, "classes": 2})
    assert type(make_optimizer(network, OptimizerConfig(kind="adam"), 1.0, 0.1)) is torch.optim.Adam


def test_layers_learn_the_slower_the_earlier_they_are_and_the_head_by_its_own_factor() -> None:
    scales = {n: s for n, (_, s) in _groups(OptimizerConfig(layer_decay=0.5, head_factor=10.0)).items()}
    assert scales["patch_embed.proj.weight"] == scales["pos_embed"] == scales["dist_token"] == 0.125
    assert scales["blocks.0.attn.qkv.weight"] == 0.25
    assert scales["blocks.1.mlp.fc2.bias"] == 0.5
    assert scales["norm.weight"] == 1
    assert scales["head.1.weight"] == 10


def test_frozen_parameters_are_left_out() -> None:
    network = build_network("ast", {**AST, "classes": 2})
    network.patch_embed.requires_grad_(False)
    optimizer = make_optimizer(network, OptimizerConfig(), 1.0, 0.1)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert not held & {id(parameter) for parameter in network.patch_embed.parameters()}
    assert layer_number("layers.3.mixer.D", 9) == 4


@pytest.mark.parametrize(
    "fields", [{"betas": (0.9,)}, {"betas": (0.9, 1.0)}, {"layer_decay": 0.0}, {"head_factor": 0.0}]
)
def test_impossible_optimisers_are_refused(fields: dict) -> None:
    with pytest.raises(FieldError):
        OptimizerConfig(**fields)
