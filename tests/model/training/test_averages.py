"""Averages of weights: exponential with a batch norm's buffers, plain over states."""

import torch

from model.training.averages import add_to_mean, follow


def test_the_average_follows_a_batch_norms_own_averages() -> None:
    """An early version averaged parameters only, so that a network with batch norm was saved untrained in part."""
    average, network = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    network(torch.randn(16, 2) + 5)
    follow(average, network, 0.9)
    assert average.running_mean is not None
    assert network.running_mean is not None
    assert torch.equal(average.running_mean, network.running_mean)


def test_an_exponential_average_moves_by_its_share() -> None:
    average, network = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    before, target = average.weight.clone(), network.weight
    follow(average, network, 0.75)
    assert torch.allclose(average.weight, 0.75 * before + 0.25 * target)


def test_the_mean_of_states_is_that_of_every_tensor() -> None:
    states = [{"w": torch.tensor([float(i), 2.0]), "n": torch.tensor(i)} for i in range(5)]
    mean: dict[str, torch.Tensor] = {}
    for count, state in enumerate(states):
        mean = add_to_mean(mean, state, count)
    assert torch.allclose(mean["w"], torch.tensor([2.0, 2.0]))
    assert mean["n"] == 4
    assert states[0]["w"][0] == 0
