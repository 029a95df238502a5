"""Remembers what was computed from a parameter alone, for as long as the parameter stays as it is.

A network in use asks for the same small arrays at every call. Computing them takes little time alone, but each operator
gives the interpreter away, and in a server other threads want it.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

Function = Callable[[Tensor], Tensor]


class _Entry(NamedTuple):
    """The state a tensor was in, its values, held on to lest others come to lie in their place, and the result."""

    state: tuple[Any, ...]
    held: Tensor
    result: Tensor


def remembered(function: Function) -> Function:
    """Decorate a function of one tensor whose result nobody writes to; it runs once per tensor that does not learn.

    A tensor has changed when torch counts a new version of it, it lies elsewhere in memory, or is laid out otherwise.
    What requires a gradient is never remembered, for torch's fused optimisers count no versions. Nor do writes through
    `tensor.data`, an array of NumPy or torch.distributed: done to a tensor without gradient, they are not noticed.
    """
    known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    @wraps(function)
    def recall(tensor: Tensor) -> Tensor:
        learns = torch.is_grad_enabled() or tensor.requires_grad
        if learns or torch.compiler.is_compiling() or tensor.is_inference():
            return function(tensor)
        state = (tensor._version, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        entry: _Entry | None = known.get(tensor)
        if entry is None or entry.state != state:
            entry = known[tensor] = _Entry(state, *_compute(function, tensor))
        return entry.result

    return recall


def _compute(function: Function, tensor: Tensor) -> tuple[Tensor, Tensor]:
    """(the tensor's values, the result), whose versions are counted even in inference mode: others may remember these.

    The function sees the values only: a result that is a view of the tensor itself would keep it alive for ever.
    """
    with torch.inference_mode(False), torch.no_grad():
        held = tensor.detach()
        return held, function(held)
