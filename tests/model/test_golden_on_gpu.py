"""Every family's golden case on a CUDA device, float32 without TF32 and bfloat16; the same lines run on the CPU."""

from collections.abc import Iterator

import pytest
import torch

from model.backbones.ssam_model import reconstruction_loss
from model.convert import aum, official_ast, ssam, ssast
from model.convert.geometry import Hints
from model.convert.reading import Source
from model.precision import to_precision
from model.registry import BACKBONES, build_network
from tests.golden import FIXTURES, assert_close, load_golden

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, gpu])])

CASES = {
    "ast_official": official_ast,
    "ast_official_sc": official_ast,
    "aum_fobi": aum,
    "aum_bibi": aum,
    "aum_fofo": aum,
    "ssast_patch": ssast,
    "ssast_frame": ssast,
}
# Of the logits' range: 8 significant bits through each layer; measured on the CPU at most a fifth of it.
BFLOAT16_TOLERANCE = 0.1


@pytest.fixture(autouse=True)
def _full_float32() -> Iterator[None]:
    """TF32 rounds a product's inputs to 10 bits; golden cases are compared without it."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


def network_of(name, converter, **hints):
    golden = load_golden(name)
    converted = converter.convert(Source(FIXTURES, golden.state), Hints(**hints))
    network = build_network(converted.backbone, vars(converted.config)).eval()
    network.load_state_dict(converted.state)
    return network, golden


def hints_of(name):
    golden = load_golden(name).config
    frames = golden.get("input_tdim") or golden["spectrogram_size"][1]
    return {"frames": frames, "heads": golden.get("num_heads") or (2 if name.startswith("ssast") else None)}


@DEVICES
@pytest.mark.parametrize("name", CASES)
def test_logits_equal_the_official_codes(name, device):
    network, golden = network_of(name, CASES[name], **hints_of(name))
    with torch.inference_mode():
        logits = network.to(device)(golden["input"].to(device)).cpu()
    assert_close(logits, golden["logits"])


@DEVICES
@pytest.mark.parametrize("name", CASES)
def test_bfloat16_stays_within_its_tolerance(name, device):
    network, golden = network_of(name, CASES[name], **hints_of(name))
    with torch.inference_mode():
        logits = to_precision(network.to(device), "bfloat16")(golden["input"].to(device)).cpu()
    allowed = BFLOAT16_TOLERANCE * max(1.0, float(golden["logits"].max() - golden["logits"].min()))
    assert logits.dtype == torch.float32
    assert_close(logits, golden["logits"], allowed)


@DEVICES
@pytest.mark.parametrize("name", ["ssam_encoder", "ssast_yadav_encoder"])
def test_features_equal_the_official_codes(name, device):
    network, golden = network_of(name, ssam, heads=load_golden(name).config.get("num_heads"))
    with torch.inference_mode():
        features = network.to(device).features(golden["input"][:, 0].to(device), "released").cpu()
    assert_close(features, golden["features"])


@DEVICES
def test_masked_pretraining_equals_the_official_codes(device):
    network, golden = network_of("ssam_pretrain", ssam)
    network.to(device)
    log_mel, mask = golden["input"][:, 0].to(device), golden["mask"].to(device)
    with torch.inference_mode():
        predictions = network.reconstruct(log_mel, mask)
        loss = reconstruction_loss(predictions, network.patch_embed.pixels(log_mel))
    assert_close(predictions.cpu(), golden["recon"])
    assert_close(loss.cpu(), golden["loss"])


@DEVICES
def test_contrastive_pretraining_equals_the_official_codes(device):
    network, golden = network_of("ssast_patch_pretrain", ssast, **hints_of("ssast_patch_pretrain"))
    network.to(device)
    log_mel, masked = golden["input"].to(device), golden["mask_index"].to(device)
    with torch.inference_mode():
        assert_close(network.contrast(log_mel, masked).loss.cpu(), golden["nce"])
        assert_close(network.reconstruct(log_mel, masked).cpu(), golden["mse"])


def test_every_family_has_a_case():
    families = {network_of(name, converter, **hints_of(name))[0].config.__class__ for name, converter in CASES.items()}
    named = {kind.__name__ for kind in families} | {"SSAMConfig"}
    assert named == {place.config for name, place in BACKBONES.items() if name != "cnn"}
