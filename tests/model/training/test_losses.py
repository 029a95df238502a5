"""Losses: the papers' two, their blend, teachers, and the pre-training objectives."""

import pytest
import torch
from torch.nn import functional

from model.backbones.ssam_model import draw_mask, reconstruction_loss
from model.registry import build_network
from model.training.losses import Batch, JointObjective, Reconstruction, Tagging, Taught, supervised_loss
from tests.model.training.tiny_runs import AUM, SSAM, SSAST, tiny_pretraining, tiny_recipe

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]])
WANTED = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def test_bce_is_the_mean_over_classes_and_cross_entropy_torchs() -> None:
    bce = functional.binary_cross_entropy_with_logits(LOGITS, WANTED)
    assert torch.allclose(supervised_loss(LOGITS, WANTED, "bce", 0.0), bce)
    ce = functional.cross_entropy(LOGITS, torch.tensor([0, 1]))
    assert torch.allclose(supervised_loss(LOGITS, WANTED, "cross_entropy", 0.0), ce)


def test_the_blend_sums_over_classes_and_shares_out() -> None:
    bce = functional.binary_cross_entropy_with_logits(LOGITS, WANTED) * 3
    ce = functional.cross_entropy(LOGITS, torch.tensor([0, 1]))
    assert torch.allclose(supervised_loss(LOGITS, WANTED, "blend", 0.0), bce)
    assert torch.allclose(supervised_loss(LOGITS, WANTED, "blend", 0.25), 0.75 * bce + 0.25 * ce)
    assert torch.allclose(supervised_loss(LOGITS, torch.zeros(2, 3), "blend", 1.0), torch.zeros(()))


@pytest.mark.parametrize("kind", ["bce", "blend"])
def test_labels_that_are_neither_asserted_nor_denied_do_not_count(kind: str) -> None:
    counted = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    changed = LOGITS.clone()
    changed[0, 1] = 9.0
    first = supervised_loss(LOGITS, WANTED, kind, 0.0, counted)
    assert torch.allclose(supervised_loss(changed, WANTED, kind, 0.0, counted), first)
    assert not torch.allclose(supervised_loss(changed, WANTED, kind, 0.0), first)


@pytest.mark.parametrize("kind", ["bce", "cross_entropy", "blend"])
def test_a_student_who_agrees_with_its_teachers_has_no_gradient_from_them(kind: str) -> None:
    changes = {"softmax_share": 0.5} if kind == "blend" else {"start_at_priors": False}
    recipe = tiny_recipe(loss=kind, teachers=("x",), distil_share=1.0, **changes)
    network = build_network("aum", {**AUM, "classes": 3})
    log_mel = torch.randn(2, 32, 32)
    logits = network(log_mel).detach()
    batch = Batch(log_mel, WANTED, log_mel, log_mel, taught=Taught(logits.sigmoid(), logits.softmax(1)))
    losses = Tagging(network, recipe)(batch)
    losses["loss"].backward()
    assert network.head.weight.grad.abs().max() < 1e-6
    assert losses["labels"] > 0


def test_teachers_and_labels_share_the_loss() -> None:
    recipe = tiny_recipe(teachers=("x",), distil_share=0.25)
    network = build_network("aum", {**AUM, "classes": 3})
    log_mel = torch.randn(2, 32, 32)
    losses = Tagging(network, recipe)(Batch(log_mel, WANTED, log_mel, log_mel, taught=Taught(WANTED, WANTED)))
    assert torch.allclose(losses["loss"], 0.75 * losses["labels"] + 0.25 * losses["teachers"])


def test_ssam_reconstructs_all_patches_or_the_masked_ones() -> None:
    network = build_network("ssam", {**SSAM, "classes": 0, "pretraining": True})
    log_mel, mask = torch.randn(2, 32, 32), draw_mask(2, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch(log_mel, WANTED, log_mel, log_mel, masks=(mask,))
    predicted, pixels = network.reconstruct(log_mel, mask), network.patch_embed.pixels(log_mel)
    for masked_only, counted in ((False, None), (True, mask)):
        loss = Reconstruction(network, tiny_pretraining(masked_only=masked_only))(batch)["loss"]
        assert torch.allclose(loss, reconstruction_loss(predicted, pixels, counted))


@pytest.mark.parametrize(
    ("objective", "contrast", "squared"), [("joint", 1, 10), ("discriminative", 1, 0), ("generative", 0, 1)]
)
def test_ssast_adds_its_objectives(objective: str, contrast: float, squared: float) -> None:
    network = build_network("ssast", {**SSAST, "classes": 0, "pretraining": True})
    recipe = tiny_pretraining(backbone="ssast", backbone_config=SSAST, objective=objective, masked_patches=6)
    log_mel, masked = torch.randn(2, 32, 32), torch.tensor([[1, 2, 3], [4, 5, 6]])
    result = JointObjective(network, recipe)(Batch(log_mel, WANTED, log_mel, log_mel, masks=(masked, masked + 1)))
    expected = contrast * network.contrast(log_mel, masked).loss + squared * network.reconstruct(log_mel, masked + 1)
    assert torch.allclose(result["loss"], expected)
    assert ("accuracy" in result) == bool(contrast)
