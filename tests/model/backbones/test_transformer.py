"""The shared transformer blocks."""

import pytest
import torch
from torch import nn

from model.backbones.transformer import Attention, Block, initialise_like_deit, make_head
from tests.golden import assert_close


def tokens(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_attention_is_softmax_over_keys():
    attention = Attention(8, heads=2)
    x = tokens(1, 5, 8)
    queries, keys, values = attention.qkv(x)[0].split(8, dim=-1)
    mixed = []
    for columns in (slice(0, 4), slice(4, 8)):
        weights = (queries[:, columns] @ keys[:, columns].T / 2).softmax(dim=-1)
        mixed.append(weights @ values[:, columns])
    assert_close(attention(x)[0], attention.proj(torch.cat(mixed, dim=-1)), 1e-5)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 10 must be a multiple of the number of heads, 3"):
        Attention(10, heads=3)


def test_keeping_some_tokens_gives_what_the_full_block_gives_them():
    block = Block(12, heads=3, mlp_width=24, epsilon=1e-6)
    x = tokens(2, 7, 12)
    assert_close(block(x, keep=2), block(x)[:, :2], 1e-5)


def test_lowered_linear_layers_leave_the_stream_in_float32():
    block = Block(32, heads=2, mlp_width=64, epsilon=1e-6)
    x = tokens(2, 7, 32)
    exact = block(x)
    for module in block.modules():
        if isinstance(module, nn.Linear):
            module.to(torch.bfloat16)
    lowered = block(x)
    assert lowered.dtype == torch.float32
    assert 0 < (lowered - exact).abs().max() < 0.05


def test_a_head_answers_in_float32_whatever_its_weights():
    head = make_head(16, 3, 1e-5)
    exact = head(tokens(2, 16))
    head[1].to(torch.bfloat16)
    assert head(tokens(2, 16)).dtype == torch.float32
    assert_close(head(tokens(2, 16)), exact, 0.05)


def test_a_network_without_classes_gives_no_logits():
    head = make_head(16, 0, 1e-5)
    assert head(tokens(2, 16)).shape == (2, 0)
    assert not list(head.parameters())


def test_linear_weights_start_as_deits_do():
    torch.manual_seed(0)
    block = Block(64, heads=2, mlp_width=256, epsilon=1e-6)
    initialise_like_deit(block)
    assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not block.attn.qkv.bias.any()
