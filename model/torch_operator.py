"""Registers functions of tensors as torch operators, which torch.compile and torch.export then treat as one step."""

from collections.abc import Callable
from typing import Any

import torch


def torch_operator(name: str, devices: tuple[str, ...] = ("CPU",)) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function of tensors as the torch operator `name`, its schema read from the annotations.

    `torch.library.custom_op` does this too, but imports torch._dynamo at the first call, which takes over a second.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        torch.library.define(name, torch.library.infer_schema(function, mutates_args=()))
        for device in devices:
            torch.library.impl(name, device)(function)
        namespace, _, operator = name.partition("::")
        return getattr(getattr(torch.ops, namespace), operator).default

    return decorate
