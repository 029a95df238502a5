"""The depthwise causal convolution with SiLU: compiled, in plain torch, and through causal-conv1d."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from model import causal_conv as module
from model.causal_conv import causal_conv, causal_conv_reference

DIRECTIONS = pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])


def make_case(batch=2, width=20, taps=4, length=33, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, width, length, generator=generator).to(dtype)
    return x, torch.randn(width, taps, generator=generator), torch.randn(width, generator=generator)


@DIRECTIONS
@pytest.mark.parametrize("taps", [1, 4, 5])
@pytest.mark.parametrize("length", [1, 3, 40])
@pytest.mark.parametrize("width", [1, 35])
def test_equals_the_reference(width, length, taps, reverse):
    case = make_case(width=width, taps=taps, length=length)
    ours = [tensor.clone().requires_grad_() for tensor in case]
    exact = [tensor.double().requires_grad_() for tensor in case]
    out, expected = causal_conv(*ours, reverse), causal_conv_reference(*exact, reverse)
    torch.testing.assert_close(out.double(), expected, atol=2e-6, rtol=2e-6)
    out_grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(out, ours, out_grad)
    references = torch.autograd.grad(expected, exact, out_grad.double())
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient.double(), reference, atol=2e-5, rtol=2e-5)


def test_looks_back_only():
    x, weight, bias = make_case(length=10)
    changed = x.clone()
    changed[:, :, 6] += 1
    difference = (causal_conv(changed, weight, bias) != causal_conv(x, weight, bias)).any(dim=1)[0]
    assert difference.tolist() == [False] * 6 + [True] * 4
    difference = (causal_conv(changed, weight, bias, True) != causal_conv(x, weight, bias, True)).any(dim=1)[0]
    assert difference.tolist() == [False] * 3 + [True] * 4 + [False] * 3


@DIRECTIONS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_once(dtype, reverse):
    x, weight, bias = make_case(dtype=dtype)
    out = causal_conv(x, weight, bias, reverse)
    assert out.dtype == dtype
    expected = causal_conv_reference(x.double(), weight, bias, reverse)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=torch.finfo(dtype).eps)


def test_half_precision_gradients_keep_their_dtypes():
    x, weight, bias = (tensor.requires_grad_() for tensor in make_case(dtype=torch.bfloat16))
    causal_conv(x, weight, bias).float().sum().backward()
    assert (x.grad.dtype, weight.grad.dtype, bias.grad.dtype) == (torch.bfloat16, torch.float32, torch.float32)


def test_any_layout():
    x, weight, bias = make_case()
    expected = causal_conv(x, weight, bias)
    rows = x.transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(causal_conv(rows, weight, bias), expected)
    torch.testing.assert_close(causal_conv(x[:1].expand(2, -1, -1), weight, bias)[1], expected[0])


def test_float64_is_computed_in_float64():
    case = [tensor.double() for tensor in make_case()]
    assert torch.equal(causal_conv(*case), causal_conv_reference(*case))


@pytest.mark.parametrize("empty", ["batch", "length"])
def test_empty_inputs_give_empty_outputs(empty):
    x, weight, bias = make_case(**{empty: 0})
    assert causal_conv(x, weight, bias).shape == x.shape


@pytest.mark.parametrize(
    "shapes",
    [((2, 20), (20, 4), (20,)), ((2, 20, 9), (19, 4), (19,)), ((2, 20, 9), (20, 4), (19,)), ((2, 20, 9), (20,), (20,))],
)
def test_shapes_that_do_not_fit_are_shown(shapes):
    with pytest.raises(ValueError, match="causal_conv: x must be"):
        causal_conv(*(torch.zeros(shape) for shape in shapes))


@DIRECTIONS
@pytest.mark.parametrize("width", [16, 20])
def test_custom_operator_is_registered_properly(width, reverse):
    arguments = tuple(tensor.requires_grad_() for tensor in make_case(width=width))
    torch.library.opcheck(torch.ops.hark.causal_conv.default, (*arguments, reverse))


def test_several_threads_at_once():
    x, weight, bias = make_case(batch=3, width=64, length=100)
    expected = causal_conv_reference(x, weight, bias)
    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(lambda _: causal_conv(x, weight, bias), range(32)):
            torch.testing.assert_close(result, expected, atol=2e-6, rtol=2e-6)


@DIRECTIONS
def test_causal_conv1d_is_called_as_documented(reverse):
    """x (batch, dim, seqlen), weight (dim, width) and bias (dim,) in x's dtype; it only looks back."""

    def causal_conv1d_fn(x, weight, bias=None, activation=None):
        assert x.dtype == weight.dtype == bias.dtype == torch.bfloat16
        assert activation == "silu"
        return causal_conv_reference(x, weight, bias)

    package = SimpleNamespace(causal_conv1d_fn=causal_conv1d_fn)
    x, weight, bias = make_case(dtype=torch.bfloat16)
    out = module._cuda_conv(package, x, weight, bias, reverse)
    torch.testing.assert_close(out, causal_conv(x, weight.bfloat16(), bias.bfloat16(), reverse), atol=2e-2, rtol=2e-2)
