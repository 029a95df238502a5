"""The fused residual sum and RMS norm against torch's own operators."""

import pytest
import torch
from torch import nn

from model.add_norm import add_rms_norm


def make_case(width, dtype=torch.float32):
    torch.manual_seed(0)
    norm = nn.RMSNorm(width, eps=1e-5)
    nn.init.normal_(norm.weight)
    return torch.randn(2, 7, width).to(dtype), torch.randn(2, 7, width), norm


@pytest.mark.parametrize("width", [16, 192, 20])
@torch.no_grad()
def test_equals_torch(width):
    h, residual, norm = make_case(width)
    normed, summed = add_rms_norm(h, residual, norm, torch.float32)
    assert torch.equal(summed, residual + h)
    torch.testing.assert_close(normed, norm(residual + h), atol=2e-6, rtol=2e-6)


@torch.no_grad()
def test_bfloat16_in_and_out_with_a_float32_sum():
    h, residual, norm = make_case(32, torch.bfloat16)
    normed, summed = add_rms_norm(h, residual, norm, torch.bfloat16)
    assert (normed.dtype, summed.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(summed, residual + h)
    torch.testing.assert_close(normed, norm(summed).bfloat16())


def test_gradients_flow():
    h, residual, norm = make_case(32)
    h.requires_grad_()
    normed, summed = add_rms_norm(h, residual, norm, torch.float32)
    (normed.sum() + summed.sum()).backward()
    assert h.grad is not None
    assert norm.weight.grad is not None


@torch.no_grad()
def test_any_layout():
    h, residual, norm = make_case(32)
    expected, _ = add_rms_norm(h, residual, norm, torch.float32)
    strided = h.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(add_rms_norm(strided, residual, norm, torch.float32)[0], expected)


@torch.no_grad()
def test_empty_batch():
    _, _, norm = make_case(32)
    normed, summed = add_rms_norm(torch.zeros(0, 7, 32), torch.zeros(0, 7, 32), norm, torch.float32)
    assert normed.shape == summed.shape == (0, 7, 32)


@torch.no_grad()
def test_custom_operator_is_registered_properly():
    h, residual, norm = make_case(32)
    arguments = (h, residual, norm.weight.detach(), 1e-5, torch.bfloat16)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.hark.add_rms_norm.default, arguments, test_utils=checks)
