"""Lowering a network to bfloat16: what is lowered, what is shared, how far the numbers move."""

import pytest
import torch

from model.backbones.ast_model import AST, ASTConfig
from model.backbones.aum_model import AuM, AuMConfig
from model.backbones.ssam_model import SSAM, SSAMConfig
from model.precision import best_cpu_precision, to_precision


def make_network(name):
    torch.manual_seed(0)
    if name == "ast":
        return AST(ASTConfig(classes=7, mels=32, frames=64, width=64, depth=2, heads=4)).eval()
    if name == "ssam":
        return SSAM(SSAMConfig(classes=7, mels=32, frames=64, width=64, depth=2)).eval()
    return AuM(AuMConfig(classes=7, mels=32, frames=64, width=64, depth=2, variant=name)).eval()


NETWORKS = pytest.mark.parametrize("name", ["ast", "ssam", "none", "v1", "v2"])


@NETWORKS
@torch.no_grad()
def test_bfloat16_stays_close(name):
    network, log_mel = make_network(name), torch.randn(3, 64, 32)
    expected = network(log_mel)
    actual = to_precision(network, "bfloat16")(log_mel)
    assert actual.dtype == torch.float32
    assert float((actual - expected).norm() / expected.norm()) < 0.03


@NETWORKS
@torch.no_grad()
def test_the_original_is_untouched_and_shares_the_rest(name):
    network, log_mel = make_network(name), torch.randn(1, 64, 32)
    before = network(log_mel)
    lowered = to_precision(network, "bfloat16")
    assert torch.equal(network(log_mel), before)
    pairs = list(zip(network.parameters(), lowered.parameters(), strict=True))
    assert all(theirs is ours for ours, theirs in pairs if theirs.dtype == torch.float32)
    assert sum(theirs.numel() for _, theirs in pairs if theirs.dtype == torch.bfloat16) > 0.7 * sum(
        ours.numel() for ours, _ in pairs if ours.ndim == 2
    )


def test_what_stays_float32():
    lowered = to_precision(make_network("v2"), "bfloat16")
    kept = {name.rpartition(".layers.0.")[2] for name, x in lowered.named_parameters() if x.dtype == torch.float32}
    for name in ("A_log", "A_b_log", "D", "D_b", "dt_proj.bias", "dt_proj_b.bias", "conv1d.weight", "conv1d_b.bias"):
        assert f"layers.0.mixer.{name}" in kept
    assert {"norm_f.weight", "head.weight", "cls_token", "pos_embed.pos_embed", "layers.1.norm.weight"} <= kept
    assert "layers.0.mixer.in_proj.weight" not in kept


@torch.no_grad()
def test_float32_changes_nothing():
    network, log_mel = make_network("v1"), torch.randn(1, 64, 32)
    assert torch.equal(to_precision(network, "float32")(log_mel), network(log_mel))


@pytest.mark.parametrize(
    ("features", "precision"),
    [
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"avx2": True}, "float32"),
        ({}, "float32"),
    ],
)
def test_best_cpu_precision_follows_the_processor(features, precision, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert best_cpu_precision() == precision
