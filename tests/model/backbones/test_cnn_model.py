"""The convolutional teacher: shapes, what it refuses, and answers that do not depend on the batch."""

import pytest
import torch

from model.backbones.cnn_model import CNN, CNNConfig

SMALL = CNNConfig(classes=5, mels=16, frames=64, widths=(4, 8, 16))


def test_logits_are_the_head_of_the_embeddings() -> None:
    network = CNN(SMALL).eval()
    log_mel = torch.randn(3, 64, 16)
    embeddings = network.embed(log_mel)
    assert embeddings.shape == (3, 16)
    torch.testing.assert_close(network(log_mel), network.head(embeddings))


def test_a_batch_answers_as_singles_do() -> None:
    network = CNN(SMALL).eval()
    log_mel = torch.randn(4, 64, 16)
    singles = torch.cat([network(row[None]) for row in log_mel])
    torch.testing.assert_close(network(log_mel), singles, rtol=1e-4, atol=1e-5)


def test_another_size_of_log_mel_is_refused() -> None:
    with pytest.raises(ValueError, match="64, 16"):
        CNN(SMALL)(torch.randn(1, 65, 16))


def test_each_block_but_the_last_halves_the_image() -> None:
    """Stride 2 at the door and two poolings: the last block sees an eighth in each direction."""
    network = CNN(SMALL).eval()
    seen: list[tuple[int, ...]] = []
    network.blocks[-1].register_forward_hook(lambda module, inputs, output: seen.append(tuple(output.shape)))
    network(torch.randn(1, 64, 16))
    assert seen == [(1, 16, 8, 2)]
