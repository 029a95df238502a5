"""Reduced precision for inference: which numbers of a network may be rounded, and what this processor gains by."""

import copy
from typing import Literal

import torch
from torch import nn

Precision = Literal["float32", "bfloat16", "float16"]


def to_precision(network: nn.Module, precision: Precision) -> nn.Module:
    """A copy of the network whose matrix products run in `precision`; all other tensors are shared with the original.

    Linear and patch layers are lowered, and the activations between them follow. Norms, residual sums, positions,
    Mamba's A, D, depthwise kernels and step biases, the scan's state, the head and so the logits stay float32.
    """
    dtype: torch.dtype = getattr(torch, precision)
    head = set(network.head.modules()) if isinstance(network.head, nn.Module) else set()
    replaced = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    for module in network.modules():
        if module in head or not _is_matrix_product(module):
            continue
        kept = "bias" if getattr(module, "float32_bias", False) else ""
        for name, parameter in module.named_parameters():
            if name != kept:
                replaced[id(parameter)] = nn.Parameter(parameter.detach().to(dtype), parameter.requires_grad)
    return copy.deepcopy(network, dict(replaced))


def _is_matrix_product(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def best_cpu_precision() -> Precision:
    """bfloat16 where this processor multiplies matrices of it natively (AMX, AVX-512, Arm), else float32."""
    capabilities = torch.cpu.get_capabilities()
    native = any(capabilities.get(feature, False) for feature in ("amx_bf16", "avx512_bf16", "arm_bf16"))
    return "bfloat16" if native else "float32"
