"""AST against the official code's numbers, and against itself in other batches, lengths and precisions."""

from dataclasses import replace

import pytest
import torch

from model.backbones.ast_model import AST, SIZES, ASTConfig, fit_state
from model.convert.official_ast import TABLE
from model.convert.renaming import rename
from tests.golden import assert_close, load_golden

TINY = ASTConfig(classes=7, frames=128, width=24, depth=2, heads=3)


def official(name: str) -> AST:
    golden = load_golden(name)
    config = golden.config
    network = AST(
        ASTConfig(
            classes=config["label_dim"],
            frames=config["input_tdim"],
            width=config["embed_dim"],
            depth=config["depth"],
            heads=config["num_heads"],
        )
    )
    network.load_state_dict(rename(golden.state, TABLE)[0])
    return network.eval()


def log_mel(batch: int, frames: int = 128) -> torch.Tensor:
    return torch.randn(batch, frames, 128, generator=torch.Generator().manual_seed(1)) / 2


@pytest.mark.parametrize("name", ["ast_official", "ast_official_sc"])
def test_official_weights_give_the_official_numbers(name):
    golden, network = load_golden(name), official(name)
    with torch.inference_mode():
        assert_close(network(golden["input"]), golden["logits"])
        assert_close(network.embed(golden["input"]), golden["features"])


def test_hugging_faces_epsilons_change_the_logits_and_are_a_setting():
    """The trap of SPEC 0.3: the same weights differ by about 3e-5 between the two epsilons."""
    golden, network = load_golden("ast_official"), official("ast_official")
    hugging_face = AST(replace(network.config, epsilon=1e-12, head_epsilon=1e-12)).eval()
    hugging_face.load_state_dict(network.state_dict())
    with torch.inference_mode():
        changed = (hugging_face(golden["input"]) - golden["logits"]).abs().max()
    assert 1e-6 < changed < 1e-3


@pytest.mark.parametrize(("size", "parameters"), [("tiny", 5_723_663), ("small", 22_063_631), ("base", 86_594_063)])
def test_published_sizes_have_the_published_number_of_parameters(size, parameters):
    with torch.device("meta"):
        network = AST(ASTConfig(**SIZES[size]))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize("stride", range(10, 17))
def test_every_stride_makes_a_network(stride):
    network = AST(replace(TINY, stride_mels=stride, stride_frames=stride)).eval()
    with torch.inference_mode():
        assert network(log_mel(1)).shape == (1, 7)


def test_a_batch_equals_singles():
    network = AST(TINY).eval()
    batch = log_mel(3)
    with torch.inference_mode():
        singles = torch.cat([network(row[None]) for row in batch])
        assert_close(network(batch), singles, 1e-5)


def test_features_are_the_mean_of_the_finished_class_tokens():
    network = AST(TINY).eval()
    with torch.inference_mode():
        assert_close(network.embed(log_mel(2)), network.encode(log_mel(2))[:, :2].mean(dim=1), 1e-5)


def test_without_distillation_there_is_one_class_token():
    network = AST(replace(TINY, distilled=False)).eval()
    assert "dist_token" not in network.state_dict()
    with torch.inference_mode():
        assert_close(network.embed(log_mel(1)), network.encode(log_mel(1))[:, 0], 1e-5)


def test_another_length_is_refused():
    with pytest.raises(ValueError, match=r"must be \(B, 128, 128\), got \(1, 100, 128\)"):
        AST(TINY)(log_mel(1, frames=100))


def test_weights_can_be_fitted_to_another_length_and_stride():
    source = AST(TINY)
    target = AST(replace(TINY, frames=300, stride_mels=16, stride_frames=12, classes=3))
    state = fit_state(source.state_dict(), source.config, target.config)
    missing, unknown = target.load_state_dict(state, strict=False)
    assert set(missing) == {name for name in target.state_dict() if name.startswith("head.")}
    assert not unknown
    assert_close(target.pos_embed[:, :2], source.pos_embed[:, :2], 0)


def test_weights_of_another_size_are_not_fitted():
    source = AST(TINY)
    with pytest.raises(ValueError, match="another size"):
        fit_state(source.state_dict(), source.config, replace(TINY, depth=3))


def test_the_network_exports_with_any_batch_size():
    """Exported with a batch of 2, the graph must run others: no shape may be baked in."""
    network = AST(TINY).eval()
    exported = torch.export.export(
        network, (log_mel(2),), dynamic_shapes={"log_mel": {0: torch.export.Dim("batch", min=1, max=64)}}
    )
    with torch.inference_mode():
        assert_close(exported.module()(log_mel(5)), network(log_mel(5)), 1e-5)
