"""The scan through mamba_ssm: what its kernel is given, tested with a stand-in; the real one on a GPU."""

import importlib
import sys
from types import ModuleType

import pytest
import torch

from model.selective_scan import selective_scan
from tests.golden import load_golden
from tests.model.scan_cases import NAMES, as_float64, make_case, with_gradients

DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
INTERFACE = "mamba_ssm.ops.selective_scan_interface"


def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """mamba_ssm's documented signature and the checks of its CUDA code, computed by the reference."""
    for tensor in (delta, B, C, z):
        assert tensor is None or tensor.dtype == u.dtype
    for tensor in (A, D, delta_bias):
        assert tensor is None or tensor.dtype == torch.float32
    return selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, implementation="reference")


@pytest.fixture
def mamba_ssm(monkeypatch):
    """A stand-in for the package."""
    parts = INTERFACE.split(".")
    for i in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:i]), ModuleType(".".join(parts[:i])))
    sys.modules[INTERFACE].selective_scan_fn = selective_scan_fn
    monkeypatch.delitem(sys.modules, "model.scan_cuda", raising=False)
    yield
    sys.modules.pop("model.scan_cuda", None)


@pytest.mark.usefixtures("mamba_ssm")
@DIRECTIONS
@pytest.mark.parametrize("without", [(), ("z",), ("z", "D", "delta_bias")], ids=["all", "no-gate", "bare"])
def test_the_kernel_is_called_as_documented(without, reverse):
    case = make_case(length=20, without=without)
    ours, expected = with_gradients(case), with_gradients(case)
    out = selective_scan(**ours, delta_softplus=True, reverse=reverse, implementation="cuda")
    reference = selective_scan(**expected, delta_softplus=True, reverse=reverse, implementation="reference")
    torch.testing.assert_close(out, reference)
    out.square().sum().backward()
    reference.square().sum().backward()
    for name in case:
        torch.testing.assert_close(ours[name].grad, expected[name].grad, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.usefixtures("mamba_ssm")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_passes_through(dtype):
    case = make_case(dtype=dtype)
    out = selective_scan(**case, delta_softplus=True, implementation="cuda")
    expected = selective_scan(**case, delta_softplus=True, implementation="reference")
    assert out.dtype == dtype
    assert torch.equal(out, expected)


@pytest.mark.usefixtures("mamba_ssm")
def test_mixed_dtypes_meet_in_float32():
    case = {**make_case(), "u": make_case()["u"].bfloat16()}
    assert selective_scan(**case, delta_softplus=True, implementation="cuda").dtype == torch.bfloat16


@pytest.mark.usefixtures("mamba_ssm")
def test_float64_is_refused():
    with pytest.raises(ValueError, match=r"not torch\.float64"):
        selective_scan(**as_float64(make_case()), implementation="cuda")


def test_without_mamba_ssm_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    monkeypatch.delitem(sys.modules, "model.scan_cuda", raising=False)
    with pytest.raises(ImportError, match=r"needs mamba-ssm .*hark\[gpu\]"):
        importlib.import_module("model.scan_cuda")


@pytest.mark.gpu
@gpu
@DIRECTIONS
@pytest.mark.parametrize("length", [1, 7, 64, 513])
def test_equals_the_official_code_on_a_gpu(length, reverse):
    pytest.importorskip("mamba_ssm")
    golden = load_golden(f"selective_scan_L{length}")
    case = {name: golden[name].cuda() for name in NAMES}
    out = selective_scan(**case, delta_softplus=True, reverse=reverse, implementation="cuda")
    expected = golden["y_rev_f64" if reverse else "y_fwd_f64"]
    torch.testing.assert_close(out.double().cpu(), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.gpu
@gpu
@DIRECTIONS
def test_gradients_on_a_gpu(reverse):
    pytest.importorskip("mamba_ssm")
    golden = load_golden("selective_scan_L64")
    case = with_gradients({name: golden[name].cuda() for name in NAMES})
    out = selective_scan(**case, delta_softplus=True, reverse=reverse, implementation="cuda")
    gradients = torch.autograd.grad(out, list(case.values()), golden["grad_out"].cuda())
    for name, gradient in zip(case, gradients, strict=True):
        expected = golden[f"grad_{'rev' if reverse else 'fwd'}_{name}_f64"]
        torch.testing.assert_close(gradient.double().cpu(), expected, atol=1e-4, rtol=1e-4)
