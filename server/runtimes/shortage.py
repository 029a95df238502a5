"""Tells a batch that found no memory from one that failed, in the words of torch, ONNX Runtime and OpenVINO."""

import torch

WORDS = ("DefaultCPUAllocator", "Failed to allocate memory", "out of memory", "bad allocation", "std::bad_alloc")


def is_shortage(error: Exception) -> bool:
    """Whether memory ran out; on a CPU the libraries say so in their sentence only."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in WORDS)
