"""The convolutional stem: the same grid and order of tokens as patches, and masks that hide."""

import pytest
import torch

from model.backbones.ast_model import AST, ASTConfig
from model.backbones.ast_model import fit_state as fit_ast
from model.backbones.aum_model import AuM, AuMConfig
from model.backbones.ssam_model import SSAM, SSAMConfig
from model.patches import PatchEmbed, TimeMajorPatchEmbed
from model.registry import build_network
from model.stem import ConvolutionalStem, make_patch_embed

AST_CONV = ASTConfig(5, 32, 64, 16, 1, 2, stride_mels=16, stride_frames=16, stem="conv")
AUM_CONV = AuMConfig(5, 32, 64, width=16, depth=1, state_size=4, stem="conv")
SSAM_CONV = SSAMConfig(5, 32, 64, 16, 1, patch_frames=8, state_size=4, pretraining=True, stem="conv")


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("patch", [(16, 16), (16, 8), (4, 16), (8, 1)])
def test_tokens_stand_where_the_patches_stand(patch, time_major):
    torch.manual_seed(0)  # with few channels some seeds leave a corner's token behind the rectifiers
    stem = ConvolutionalStem(32, patch, time_major).eval()
    linear = TimeMajorPatchEmbed(32, patch) if time_major else PatchEmbed(32, patch, patch)
    log_mel = torch.zeros(1, 64, 32)
    changed = log_mel.clone()
    changed[0, 48:, 16:] = 3.0  # a patch or more at the end of time, in the upper bands
    difference = (stem(changed) - stem(log_mel)).norm(dim=2)[0]
    expected = (linear(changed) - linear(log_mel)).norm(dim=2)[0] > 0
    assert stem(log_mel).shape == linear(log_mel).shape
    assert difference[expected].min() > 0
    assert int(difference.argmax()) in expected.nonzero().flatten().tolist()


@pytest.mark.parametrize("time_major", [False, True])
def test_pixels_are_those_of_the_patches(time_major):
    stem = ConvolutionalStem(8, (16, 8), time_major)
    linear = TimeMajorPatchEmbed(8, (16, 8)) if time_major else PatchEmbed(8, (16, 8), (16, 8))
    log_mel = torch.randn(2, 64, 32)
    assert torch.equal(stem.pixels(log_mel), linear.pixels(log_mel))


@pytest.mark.parametrize("time_major", [False, True])
def test_hidden_patches_are_zero_and_others_untouched(time_major):
    stem = ConvolutionalStem(8, (16, 8), time_major)
    log_mel = torch.randn(2, 64, 32)
    mask = torch.rand(2, 16) < 0.5
    before, after = stem.pixels(log_mel), stem.pixels(stem.hide(log_mel, mask))
    assert torch.equal(after, before * ~mask.unsqueeze(-1))


def test_nothing_of_a_masked_patch_reaches_the_reconstruction():
    network = SSAM(SSAM_CONV).eval()
    log_mel = torch.randn(1, 64, 32)
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[0, 5] = True
    other = torch.where(network.patch_embed.hide(log_mel, mask) == 0, 9.0, log_mel)
    assert not torch.equal(other, log_mel)
    assert torch.equal(network.reconstruct(other, mask), network.reconstruct(log_mel, mask))


@pytest.mark.parametrize(
    ("patch", "stride", "message"),
    [((12, 16), (12, 16), "powers of two"), ((1, 1), (1, 1), "powers of two"), ((16, 16), (10, 10), "side by side")],
)
def test_patches_that_it_cannot_cut_are_refused(patch, stride, message):
    with pytest.raises(ValueError, match=message):
        make_patch_embed("conv", 8, patch, stride)


def test_another_stem_is_refused_by_name():
    with pytest.raises(ValueError, match="patch or conv, not 'foo'"):
        build_network("aum", {"classes": 5, "stem": "foo"})


@pytest.mark.parametrize("network", [AST(AST_CONV), AuM(AUM_CONV), SSAM(SSAM_CONV)])
def test_each_family_takes_the_stem(network):
    network.eval()
    log_mel = torch.randn(3, 64, 32)
    logits = network(log_mel)
    assert logits.shape == (3, 5)
    assert torch.allclose(network.head(network.embed(log_mel)), logits, atol=1e-6)
    torch.testing.assert_close(network(log_mel[1:2]), logits[1:2], rtol=1e-4, atol=1e-5)


def test_flexible_patches_need_a_kernel():
    with pytest.raises(ValueError, match="no kernel to resample"):
        AuM(AUM_CONV).embed(torch.zeros(1, 64, 32), patch=8)


def test_weights_of_one_stem_do_not_fit_the_other():
    plain = ASTConfig(5, 32, 64, 16, 1, 2, stride_mels=16, stride_frames=16)
    with pytest.raises(ValueError, match="another size"):
        fit_ast(AST(AST_CONV).state_dict(), AST_CONV, plain)
