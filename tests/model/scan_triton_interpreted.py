"""Our Triton scan in Triton's interpreter, on a CPU: `test_scan_triton.py` starts these in a process of their own.

The interpreter must be chosen (TRITON_INTERPRET=1) before anything imports Triton.
"""

import pytest
import torch

from model import scan_triton
from model.selective_scan import selective_scan
from tests.golden import load_golden
from tests.model.scan_cases import NAMES, as_float64, make_case, with_gradients

DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Few channels and steps per program, so that small tensors meet every edge; the interpreter takes its time."""
    monkeypatch.setattr(scan_triton, "CHUNK", 8)
    monkeypatch.setattr(scan_triton, "CHANNELS", 4)
    monkeypatch.setattr(scan_triton, "BACKWARD_CHANNELS", 2)


def compare(case, delta_softplus=True, reverse=False):
    """Output and gradients against the float64 reference."""
    ours, exact = with_gradients(case), with_gradients(as_float64(case))
    out = selective_scan(**ours, delta_softplus=delta_softplus, reverse=reverse, implementation="triton")
    expected = selective_scan(**exact, delta_softplus=delta_softplus, reverse=reverse)
    torch.testing.assert_close(out.double(), expected, atol=2e-5, rtol=2e-5)
    out_grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(7))
    gradients = torch.autograd.grad(out, list(ours.values()), out_grad)
    references = torch.autograd.grad(expected, list(exact.values()), out_grad.double())
    for name, gradient, reference in zip(case, gradients, references, strict=True):
        torch.testing.assert_close(
            gradient.double(), reference, atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )


@DIRECTIONS
@pytest.mark.parametrize(("width", "states", "length"), [(1, 1, 1), (3, 5, 7), (5, 4, 8), (4, 3, 17)])
def test_any_shape(width, states, length, reverse):
    compare(make_case(2, width, states, length), reverse=reverse)


@DIRECTIONS
def test_equals_the_official_code(reverse):
    golden = load_golden("selective_scan_L64")
    case = {name: golden[name] for name in NAMES}
    actual = selective_scan(**case, delta_softplus=True, reverse=reverse, implementation="triton")
    expected = golden["y_rev_f64" if reverse else "y_fwd_f64"]
    torch.testing.assert_close(actual.double(), expected, atol=2e-5, rtol=1e-5)


@DIRECTIONS
def test_one_stretch_and_many_agree(monkeypatch, reverse):
    """Few sequences are cut into stretches of steps, many are not: the numbers are the same."""
    case = make_case(batch=1, width=5, length=37)
    assert scan_triton._stretch_steps(1, 5, 37) < 37
    many = selective_scan(**case, delta_softplus=True, reverse=reverse, implementation="triton")
    monkeypatch.setattr(scan_triton, "PROGRAMS", 1)
    assert scan_triton._stretch_steps(1, 5, 37) >= 37
    one = selective_scan(**case, delta_softplus=True, reverse=reverse, implementation="triton")
    torch.testing.assert_close(many, one, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("without", [("z",), ("z", "D", "delta_bias")], ids=["no-gate", "bare"])
def test_optional_inputs(without):
    compare(make_case(width=3, length=11, without=without), reverse=True)


def test_without_softplus():
    case = make_case(width=3, length=11, without=("delta_bias",))
    case["delta"] = case["delta"].abs()
    compare(case, delta_softplus=False)


def test_small_steps_keep_their_precision():
    """Story: log(1 + exp(x)) in float32 gives 0 for x = -20; steps of 1e-3 lost three digits."""
    case = make_case(width=3, length=5, without=("delta_bias", "D"))
    case["delta"] -= 14
    out = selective_scan(**case, delta_softplus=True, implementation="triton")
    expected = selective_scan(**as_float64(case), delta_softplus=True)
    torch.testing.assert_close(out.double(), expected, atol=0, rtol=1e-4)


def test_any_layout():
    case = make_case(batch=3, width=5, length=9)
    strided = {name: x.transpose(1, 2).contiguous().transpose(1, 2) if x.ndim == 3 else x for name, x in case.items()}
    strided["u"] = case["u"][:1].expand(3, -1, -1)
    actual = selective_scan(**strided, delta_softplus=True, implementation="triton")
    expected = selective_scan(**strided, delta_softplus=True, implementation="reference")
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_and_out_keeps_a_float32_state(dtype):
    case = make_case(batch=1, width=4, length=30, dtype=dtype)
    actual = selective_scan(**case, delta_softplus=True, implementation="triton")
    exact = selective_scan(**as_float64(case), delta_softplus=True)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), exact, atol=2e-4, rtol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("empty", ["batch", "length"])
def test_empty_inputs_give_empty_outputs(empty):
    case = with_gradients(make_case(**{empty: 0}))
    out = selective_scan(**case, delta_softplus=True, implementation="triton")
    assert out.shape == case["u"].shape
    out.sum().backward()
    assert (case["A"].grad == 0).all()


def test_float64_is_refused():
    with pytest.raises(ValueError, match=r"not torch\.float64"):
        selective_scan(**as_float64(make_case()), implementation="triton")


def test_custom_operator_is_registered_properly():
    case = with_gradients(make_case(width=3, length=9))
    arguments = (*case.values(), True, True, True)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.hark.selective_scan_triton.default, arguments, test_utils=checks)
