"""Registers CPU functions as torch operators, which torch.compile and torch.export then treat as one step."""

from collections.abc import Callable
from typing import Any

import torch


def cpu_operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function of tensors as the torch operator `name`, its schema read from the annotations.

    `torch.library.custom_op` does this too, but imports torch._dynamo at the first call, which takes over a second.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
        torch.library.impl(name, "CPU")(function)
        namespace, _, operator = name.partition("::")
        return getattr(getattr(torch.ops, namespace), operator).default

    return decorate
