"""The scans in bfloat16 with a float32 state, forward and backward in both directions, against golden float64."""

import pytest
import torch

from model.selective_scan import selective_scan
from tests.golden import load_golden
from tests.model.scan_cases import NAMES, with_gradients

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
IMPLEMENTATIONS = pytest.mark.parametrize(
    ("implementation", "device"),
    [
        ("cpu", "cpu"),
        pytest.param("triton", "cuda", marks=[pytest.mark.gpu, gpu]),
        pytest.param("cuda", "cuda", marks=[pytest.mark.gpu, gpu]),
    ],
)
DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
ROUNDED = ("u", "delta", "B", "C", "z")
TOLERANCE = 0.03  # of the largest value: 8 significant bits in, 8 out, and sums of hundreds of such numbers


def reduced(golden, device):
    """The golden inputs, those that travel between layers as bfloat16."""
    case = {name: golden[name].to(device) for name in NAMES}
    return {name: tensor.bfloat16() if name in ROUNDED else tensor for name, tensor in case.items()}


def assert_near(actual, exact):
    difference = (actual.double().cpu() - exact).abs().max()
    assert difference <= TOLERANCE * max(1.0, float(exact.abs().max()))


@IMPLEMENTATIONS
@DIRECTIONS
@pytest.mark.parametrize("length", [64, 513])
def test_forward(implementation, device, reverse, length):
    if implementation == "cuda":
        pytest.importorskip("mamba_ssm")
    golden = load_golden(f"selective_scan_L{length}")
    out = selective_scan(**reduced(golden, device), delta_softplus=True, reverse=reverse, implementation=implementation)
    assert out.dtype == torch.bfloat16
    assert_near(out, golden["y_rev_f64" if reverse else "y_fwd_f64"])


@IMPLEMENTATIONS
@DIRECTIONS
def test_backward(implementation, device, reverse):
    if implementation == "cuda":
        pytest.importorskip("mamba_ssm")
    golden = load_golden("selective_scan_L64")
    case = with_gradients(reduced(golden, device))
    out = selective_scan(**case, delta_softplus=True, reverse=reverse, implementation=implementation)
    gradients = torch.autograd.grad(out, list(case.values()), golden["grad_out"].to(device).bfloat16())
    for name, gradient in zip(case, gradients, strict=True):
        assert_near(gradient, golden[f"grad_{'rev' if reverse else 'fwd'}_{name}_f64"])
