"""Every form of attention gives what `Attention` gives."""

import pytest
import torch

from export.attention import SplitAttention, SteadyAttention
from model.backbones.transformer import Attention


@pytest.mark.parametrize("form", [SplitAttention, SteadyAttention])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("keep", [None, 1, 2])
def test_every_form_gives_the_same_tokens(
    form: type[SplitAttention] | type[SteadyAttention], bias: bool, keep: int | None
) -> None:
    torch.manual_seed(0)
    attention = Attention(48, 3, qkv_bias=bias).requires_grad_(False)
    for parameter in attention.parameters():
        parameter.normal_(0, 0.3)
    tokens = torch.randn(2, 7, 48)
    expected = attention(tokens, keep)
    torch.testing.assert_close(form(attention)(tokens, keep), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(attention(tokens, keep), expected)  # its own weights are as they were
