"""Torch tensors as the arrays that the CPU kernels read and write: channels last, padded to whole vectors.

NumPy has no bfloat16, so its bits travel as int16; the kernels' loads and stores know (`simd.py`).
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model.simd import LANES

STORED = (torch.float32, torch.bfloat16)
"""What the kernels read and write directly."""


def common_dtype(*tensors: Tensor | None) -> torch.dtype:
    """The dtype that the tensors share, if the kernels can read it; else float32."""
    dtypes = {tensor.dtype for tensor in tensors if tensor is not None}
    return dtypes.pop() if len(dtypes) == 1 and dtypes <= set(STORED) else torch.float32


def values(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in a dtype, outside of autograd.

    Where nothing is to be done, nothing is called: at every operator a thread gives the interpreter away, and where
    other threads want it, as those of a server do, it waits to have it back.
    """
    if tensor.requires_grad:
        tensor = tensor.detach()
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def channels_last(tensor: Tensor, dtype: torch.dtype, multiple: int = LANES) -> Tensor:
    """(Bsz, D, L) in any layout → (Bsz, L, D') contiguous, D' padded with zeros; no copy where none is needed."""
    rows = values(tensor, dtype).transpose(1, 2)
    padding = -rows.shape[2] % multiple
    return functional.pad(rows, (0, padding)).contiguous() if padding else rows.contiguous()


def channel_vector(tensor: Tensor | None, width: int) -> Tensor:
    """(D,) or nothing (zeros) → (D',) float32, D' padded with zeros to whole vectors."""
    padding = -width % LANES
    if tensor is None:
        return torch.zeros(width + padding)
    vector = values(tensor, torch.float32)
    return functional.pad(vector, (0, padding)) if padding else vector.contiguous()


def as_array(tensor: Tensor) -> np.ndarray:
    """The tensor's memory as an array that kernels accept."""
    tensor = values(tensor, tensor.dtype)
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
