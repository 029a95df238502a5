"""What is remembered of a tensor is always what the tensor would give now, and goes with it."""

import copy
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from model.registry import build_network
from model.remembered import remembered
from model.training.averages import follow


class Counted:
    """Doubles a tensor, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0
        self.recall = remembered(self._double)

    def _double(self, tensor: Tensor) -> Tensor:
        self.calls += 1
        return 2 * tensor


@pytest.fixture
def doubled() -> Counted:
    return Counted()


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape or (3, 4)), requires_grad=False)


def _add_in_place(parameter: nn.Parameter) -> None:
    parameter.add_(1)


def _lerp(parameter: nn.Parameter) -> None:
    parameter.lerp_(torch.ones_like(parameter), 0.5)


def _add_many(parameter: nn.Parameter) -> None:
    torch._foreach_add_([parameter], 1.0)


def _point_elsewhere(parameter: nn.Parameter) -> None:
    parameter.data = torch.randn_like(parameter)


def _cut(parameter: nn.Parameter) -> None:
    parameter.data = parameter.data[:2]


def _turn(parameter: nn.Parameter) -> None:
    parameter.data = parameter.data.t()


def _to_bfloat16_and_back(parameter: nn.Parameter) -> None:
    module = nn.Module()
    module.weight = parameter
    module.to(torch.bfloat16).to(torch.float32)


def _load(parameter: nn.Parameter) -> None:
    module = nn.Module()
    module.weight = parameter
    module.load_state_dict({"weight": torch.randn_like(parameter)})


CHANGES = [_add_in_place, _lerp, _add_many, _point_elsewhere, _cut, _turn, _to_bfloat16_and_back, _load]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_a_change_is_noticed(
    doubled: Counted, change: Callable[[nn.Parameter], None], mode: Callable[[], torch.no_grad]
) -> None:
    parameter = _parameter()
    with mode():
        assert doubled.recall(parameter) is doubled.recall(parameter)
        assert doubled.calls == 1
    with torch.no_grad():
        change(parameter)
    with mode():
        assert torch.equal(doubled.recall(parameter), 2 * parameter)
        assert doubled.calls == 2


@pytest.mark.parametrize("settings", [{"foreach": True}, {"fused": True}, {"foreach": False}], ids=str)
def test_a_step_of_an_optimiser_is_noticed(doubled: Counted, settings: dict[str, bool]) -> None:
    """Fused AdamW, the one that training takes, counts no version: what was measured then was the first epoch's."""
    parameter = _parameter().requires_grad_()
    optimizer = torch.optim.AdamW([parameter], lr=0.1, **settings)
    for _ in range(2):
        parameter.square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            assert torch.equal(doubled.recall(parameter), 2 * parameter)


def test_a_network_that_learns_is_measured_as_it_is() -> None:
    """The same with a whole network: a copy that never computed anything must agree."""
    network = build_network("aum", {"mels": 32, "frames": 32, "width": 16, "depth": 1, "classes": 2})
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05, fused=True)
    sound = torch.randn(2, 32, 32)
    for _ in range(2):
        network(sound).square().sum().backward()
        optimizer.step()
        follow(average, network, 0.5)
        for measured in (network, average):
            with torch.inference_mode():
                assert torch.equal(measured(sound), copy.deepcopy(measured)(sound))


def test_another_tensor_in_its_place_is_another(doubled: Counted) -> None:
    with torch.no_grad():
        for _ in range(20):
            tensor = torch.randn(1000)  # freed each time, so that the next lies where it lay
            assert torch.equal(doubled.recall(tensor), 2 * tensor)
            del tensor
    assert doubled.calls == 20


@pytest.mark.parametrize(
    "function", [lambda tensor: 2 * tensor, lambda tensor: tensor.squeeze(1), lambda tensor: tensor]
)
def test_what_is_remembered_goes_with_its_tensor(function: Callable[[Tensor], Tensor]) -> None:
    """A result that was a view of its tensor kept it alive, and with it the weights of every model ever served."""
    recall = remembered(function)
    tensor = _parameter(3, 1, 4)
    with torch.no_grad():
        result = weakref.ref(recall(tensor))
    gone = weakref.ref(tensor)
    del tensor
    assert (gone(), result()) == (None, None)


def test_gradients_flow_as_if_nothing_were_remembered(doubled: Counted) -> None:
    parameter = _parameter().requires_grad_()
    with torch.no_grad():
        doubled.recall(parameter)
    doubled.recall(parameter).sum().backward()
    assert torch.equal(parameter.grad, torch.full((3, 4), 2.0))
    frozen = _parameter()
    with torch.inference_mode():
        doubled.recall(frozen)
    other = torch.ones(3, 4, requires_grad=True)
    (doubled.recall(frozen) * other).sum().backward()  # a tensor of inference mode could not be saved for this
    assert torch.equal(other.grad, 2 * frozen)


def test_inference_mode_gives_the_same_and_its_own_tensors_work(doubled: Counted) -> None:
    parameter = _parameter()
    with torch.inference_mode():
        first = doubled.recall(parameter)
        born = torch.ones(2)
        assert torch.equal(doubled.recall(born), torch.full((2,), 2.0))
        born += 1
        assert torch.equal(doubled.recall(born), torch.full((2,), 4.0))
    with torch.no_grad():
        assert doubled.recall(parameter) is first
    assert not first.is_inference()


def test_a_copy_is_a_tensor_of_its_own(doubled: Counted) -> None:
    parameter = _parameter()
    with torch.no_grad():
        doubled.recall(parameter)
        twin = copy.deepcopy(parameter)
        twin.zero_()
        assert not doubled.recall(twin).any()
        assert torch.equal(doubled.recall(parameter), 2 * parameter)


def test_threads_share_what_is_remembered(doubled: Counted) -> None:
    parameters = [_parameter(n + 1) for n in range(8)]

    def ask(turn: int) -> bool:
        with torch.inference_mode():
            parameter = parameters[turn % 8]
            return torch.equal(doubled.recall(parameter), 2 * parameter)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(400)))
    calls = doubled.calls
    assert all(map(ask, range(8)))
    assert doubled.calls == calls


def test_the_function_keeps_its_name() -> None:
    def rates(tensor: Tensor) -> Tensor:
        """Exponential decay."""
        return tensor

    assert (remembered(rates).__name__, remembered(rates).__doc__) == ("rates", "Exponential decay.")
