"""Splits a compiled kernel's work over processor cores, from any number of calling threads at once.

Numba's own parallel loops are not used: their portable threading layer aborts the process when two threads enter it
together.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


@cache
def _pool() -> ThreadPoolExecutor:
    # One pool for all callers; a kernel never waits for another kernel, so sharing it cannot deadlock.
    return ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads()), thread_name_prefix="hark-kernel")


def slice_count(items: int) -> int:
    """How many slices to cut `items` independent pieces of work into: torch's thread count, at most one per item."""
    return max(1, min(torch.get_num_threads(), items))


def run_slices(kernel: Callable[[int, int, int], None], items: int, slices: int) -> None:
    """Call kernel(slice_index, first, last) for `slices` equal ranges of 0..items, one on the calling thread, and wait.

    The kernel must release the GIL (Numba's nogil=True) to gain anything.

    Raises: what the kernel raises, after every slice has ended.
    """
    bounds = [items * i // slices for i in range(slices + 1)]
    pending = [_pool().submit(kernel, i, bounds[i], bounds[i + 1]) for i in range(1, slices)]
    try:
        kernel(0, bounds[0], bounds[1])
    finally:
        failures = [future.exception() for future in pending]  # waits: the slices write into the caller's memory
    for failure in failures:
        if failure is not None:
            raise failure
