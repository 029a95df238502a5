"""Splits a compiled kernel's work over processor cores, from any number of calling threads at once.

Slices run in the OpenMP team that torch's own operators use. Threads of another pool would fight with that team, whose
members keep spinning on their cores for a while after each matrix product; the scan then gained nothing from a second
core. Where torch brings no GNU OpenMP (macOS), a thread pool has to do. Numba's own parallel loops are not used: their
portable threading layer aborts the process when two threads enter it together.
"""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

Kernel = Callable[[int, int, int], None]
"""(slice index, first item, last item + 1): computes those items."""


WORTH_A_SLICE = 1 << 16
"""Numbers whose simple arithmetic takes as long as sending another core to work: some 50 microseconds."""


def slice_count(items: int, smallest: int = 1) -> int:
    """How many slices to cut `items` independent pieces of work into: one per torch thread, none below `smallest`."""
    return max(1, min(torch.get_num_threads(), items // smallest))


def run_slices(kernel: Kernel, items: int, slices: int) -> None:
    """Call the kernel for `slices` equal ranges of 0..items, each in a thread of its own, and wait.

    The kernel must release the GIL (Numba's nogil=True) to gain anything.

    Raises: what the kernel raises, after every slice has ended.
    """
    if slices == 1:
        return kernel(0, 0, items)
    failures: list[BaseException] = []

    def run(i: int) -> None:
        try:
            kernel(i, items * i // slices, items * (i + 1) // slices)
        except BaseException as error:
            failures.append(error)

    if openmp := _openmp():
        _run_in_team(openmp, run, slices)
    else:
        list(_pool().map(run, range(slices)))
    if failures:
        raise failures[0]
    return None


@cache
def _openmp() -> Any:
    """The GNU OpenMP library inside torch, called with and without the GIL, or None.

    Loading it again gives the copy that torch uses.
    """
    for library in Path(torch.__file__).parent.glob("lib/libgomp*.so*"):
        return ctypes.PyDLL(str(library)), ctypes.CDLL(str(library))
    return None


def end_team() -> None:
    """End the calling thread's OpenMP team; its next parallel operator starts another.

    The library counts the threads of all teams, idle ones too. As soon as there are more of them than cores, no member
    waits awake for the next operator any more, and waking costs more than a small operator: on two cores one batch of
    aum-tiny took 22 ms instead of 15 because of a team that another thread had used once.
    """
    if (openmp := _openmp()) and hasattr(openmp[1], "omp_pause_resource_all"):  # since OpenMP 5
        openmp[1].omp_pause_resource_all(1)


_TEAM_MEMBER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _run_in_team(openmp: Any, run: Callable[[int], None], slices: int) -> None:
    """Share the slices out among the calling thread's team, of torch's size: another would end and start threads."""
    with_gil, without_gil = openmp

    def member(_: int | None) -> None:
        for i in range(with_gil.omp_get_thread_num(), slices, with_gil.omp_get_num_threads()):
            run(i)

    without_gil.GOMP_parallel(_TEAM_MEMBER(member), None, ctypes.c_uint(torch.get_num_threads()), ctypes.c_uint(0))


@cache
def _pool() -> ThreadPoolExecutor:
    # One pool for all callers; a kernel never waits for another kernel, so sharing it cannot deadlock.
    return ThreadPoolExecutor(max_workers=max(1, torch.get_num_threads()), thread_name_prefix="hark-kernel")
