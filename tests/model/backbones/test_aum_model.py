"""AuM: golden logits of all variants, flexible patches, resampled checkpoints, published sizes."""

import pytest
import torch

from model.backbones.aum_model import AuM, AuMConfig, resize_state
from tests.golden import assert_close, load_golden


def golden_config(config, **changes):
    """A fixture's official config as ours."""
    mels, frames = config["spectrogram_size"]
    values = {
        "classes": config["num_classes"],
        "mels": mels,
        "frames": frames,
        "patch": config["patch_size"][0],
        "stride": config["strides"][0],
        "width": config["embed_dim"],
        "depth": config["depth"],
        "variant": config["bimamba_type"],
    }
    return AuMConfig(**{**values, **changes})


def golden_network(name):
    golden = load_golden(name)
    network = AuM(golden_config(golden.config)).eval()
    network.load_state_dict(golden.state)
    return network, golden


@pytest.mark.parametrize("name", ["aum_fobi", "aum_bibi", "aum_fofo", "aum_flex"])
@torch.no_grad()
def test_equals_the_official_code(name):
    network, golden = golden_network(name)
    assert_close(network.embed(golden["input"]), golden["features"])
    assert_close(network(golden["input"]), golden["logits"])


@pytest.mark.parametrize(("variant", "patch", "stride"), [("p8", 8, 8), ("p32", 32, 32), ("p16s10", 16, 10)])
@torch.no_grad()
def test_flexible_patches_equal_the_official_code(variant, patch, stride):
    network, golden = golden_network("aum_flex")
    assert_close(network(golden["input"], patch, stride), golden[f"logits_{variant}"])


@pytest.mark.parametrize("number", [0, 1, 2, 3])
@torch.no_grad()
def test_resampled_checkpoints_equal_the_official_code(number):
    golden = load_golden("aum_resample")
    source = golden_config(golden.config["source"])
    target = golden.config["targets"][number]
    config = golden_config({**golden.config["source"], **target})
    assert config.grid == tuple(target["grid"])
    state = resize_state(golden.state, source, config)
    for name in ("pos_embed.pos_embed", "patch_embed.proj.weight"):
        if f"dst{number}.{name}" in golden.tensors:
            assert_close(state[name], golden[f"dst{number}.{name}"])
    network = AuM(config).eval()
    network.load_state_dict(state)
    if f"dst{number}.input" in golden.tensors:
        assert_close(network(golden[f"dst{number}.input"]), golden[f"dst{number}.logits"])


@pytest.mark.parametrize(
    ("width", "variant", "parameters"),
    [
        (192, "none", 6_291_023),
        (192, "v1", 6_438_479),
        (192, "v2", 7_019_087),
        (384, "none", 23_640_719),
        (384, "v1", 23_935_631),
        (384, "v2", 25_539_215),
        (768, "none", 91_517_711),
        (768, "v1", 92_107_535),
        (768, "v2", 97_084_175),
    ],
)
def test_published_sizes(width, variant, parameters):
    with torch.device("meta"):
        network = AuM(AuMConfig(classes=527, width=width, variant=variant))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_published_small_checkpoint_has_these_tensors():
    with torch.device("meta"):
        state = AuM(AuMConfig(classes=527, width=384, variant="v2")).state_dict()
    assert tuple(state["layers.23.mixer.conv1d_b.weight"].shape) == (768, 1, 4)
    assert tuple(state["layers.23.mixer.x_proj_b.weight"].shape) == (56, 768)
    assert tuple(state["pos_embed.pos_embed"].shape) == (1, 513, 384)
    assert len(state) == 7 + 24 * 17


def small_network(**changes):
    torch.manual_seed(0)
    values = {"classes": 7, "mels": 32, "frames": 64, "width": 32, "depth": 2, **changes}
    return AuM(AuMConfig(**values)).eval()


@pytest.mark.parametrize("class_token", ["start", "middle", "end"])
@torch.no_grad()
def test_a_batch_equals_its_rows(class_token):
    network, log_mel = small_network(class_token=class_token), torch.randn(3, 64, 32)
    logits = network(log_mel)
    assert logits.shape == (3, 7)
    torch.testing.assert_close(logits, torch.cat([network(row[None]) for row in log_mel]), atol=1e-5, rtol=1e-5)


def test_every_parameter_gets_a_gradient():
    network = small_network(variant="v2").train()
    network(torch.randn(2, 64, 32)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())


@pytest.mark.parametrize("shape", [(1, 63, 32), (1, 64, 31), (64, 32)])
def test_other_spectrograms_are_refused(shape):
    with pytest.raises(ValueError, match=r"log-mel must be \(B, 64, 32\)"):
        small_network()(torch.zeros(shape))


@pytest.mark.parametrize("variant", ["none", "v1", "v2"])
@torch.no_grad()
def test_exports_with_the_scan_as_one_operator(variant):
    network, log_mel = small_network(variant=variant), torch.randn(1, 64, 32)
    program = torch.export.export(network, (log_mel,))
    scans = [node for node in program.graph.nodes if "hark.selective_scan" in str(node.target)]
    assert len(scans) == (4 if variant == "v2" else 2)
    torch.testing.assert_close(program.module()(log_mel), network(log_mel))
