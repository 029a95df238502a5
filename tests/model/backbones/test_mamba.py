"""The Mamba mixer: golden outputs and gradients of its three variants, initial values, reduced precision."""

import math

import pytest
import torch

from model.backbones.mamba import MambaMixer, scale_output_projections
from tests.golden import assert_close, load_golden

GRADIENT_TOLERANCE = 1e-4


def golden_mixer(name):
    """The fixture's mixer and the case."""
    golden = load_golden(f"mamba_mixer_{name}")
    config = golden.config
    mixer = MambaMixer(
        config["d_model"],
        expand=config["expand"],
        state_size=config["d_state"],
        conv_width=config["d_conv"],
        variant=config["bimamba_type"],
        halve_v2=config.get("if_devide_out", False),
    )
    mixer.load_state_dict(golden.state)
    return mixer, golden


@pytest.mark.parametrize("name", ["none", "v1", "v2_div", "v2_sum"])
def test_equals_the_official_code(name):
    mixer, golden = golden_mixer(name)
    assert_close(mixer(golden["input"]), golden["output"])


@pytest.mark.parametrize("name", ["none", "v1", "v2_div"])
def test_gradients_equal_the_official_code(name):
    mixer, golden = golden_mixer(name)
    x = golden["input"].requires_grad_()
    mixer(x).backward(golden["grad_out"])
    assert_close(x.grad, golden["grad_input"], GRADIENT_TOLERANCE)
    for parameter_name, parameter in mixer.named_parameters():
        assert_close(parameter.grad, golden[f"grad.{parameter_name}"], GRADIENT_TOLERANCE)


@pytest.mark.parametrize("variant", ["none", "v1", "v2"])
def test_a_batch_equals_its_rows(variant):
    torch.manual_seed(0)
    mixer, x = MambaMixer(24, variant=variant), torch.randn(3, 19, 24)
    torch.testing.assert_close(mixer(x), torch.cat([mixer(row[None]) for row in x]))


@pytest.mark.parametrize(("variant", "sees_later_steps"), [("none", False), ("v1", True), ("v2", True)])
def test_which_way_a_variant_looks(variant, sees_later_steps):
    torch.manual_seed(0)
    mixer, x = MambaMixer(24, variant=variant), torch.randn(1, 9, 24)
    changed = x.clone()
    changed[:, 5] += 1
    before = (mixer(changed) - mixer(x))[0, :5].abs().max()
    assert bool(before > 1e-6) == sees_later_steps


def test_initial_values():
    torch.manual_seed(0)
    mixer = MambaMixer(32, variant="v2")
    assert_close(mixer.A_log.exp(), torch.arange(1.0, 17).expand(64, 16))
    assert_close(mixer.A_b_log, mixer.A_log)
    assert (mixer.D == 1).all()
    steps = torch.nn.functional.softplus(mixer.dt_proj.bias)
    assert 1e-3 * 0.99 < steps.min() < steps.max() < 1e-1 * 1.01
    assert mixer.dt_proj.weight.abs().max() <= mixer.rank**-0.5


def test_output_projections_shrink_with_depth():
    torch.manual_seed(0)
    mixers = [MambaMixer(32) for _ in range(16)]
    scale_output_projections(mixers)
    bound = 1 / math.sqrt(64) / math.sqrt(16)  # Kaiming-uniform with a = sqrt(5) is U(-1/sqrt(fan_in), +)
    for mixer in mixers:
        assert 0.9 * bound < mixer.out_proj.weight.abs().max() <= bound


@pytest.mark.parametrize("variant", ["none", "v1", "v2"])
@torch.no_grad()
def test_bfloat16_linear_layers_stay_close(variant):
    torch.manual_seed(0)
    mixer, x = MambaMixer(64, variant=variant), torch.randn(2, 100, 64)
    expected = mixer(x)
    for module in mixer.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = module.weight.data.bfloat16()
    actual = mixer(x.bfloat16())
    assert actual.dtype == torch.bfloat16
    assert float((actual - expected).norm() / expected.norm()) < 0.02
