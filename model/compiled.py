"""Compiles kernels for the CPU with Numba and keeps the machine code on disk between runs.

Numba notices a change of the file that a kernel stands in, but not of the modules that the kernel calls; so cached code
older than any of those sources is thrown away here. Where no folder can be written, kernels are compiled in every
process.
"""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from numba import njit

_log = logging.getLogger(__name__)


def compiled(sources: Iterable[str] = ()) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a kernel, compiled on its first call, without the GIL; `sources`: files of the modules it calls."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            kernel = njit(nogil=True, cache=True)(function)
        except RuntimeError as error:  # Numba's word for "no folder to write to"
            _log.warning("kernel %s is compiled anew in every process: %s", function.__name__, error)
            return njit(nogil=True)(function)
        _drop_stale(kernel, [Path(source) for source in sources])
        return kernel

    return decorate


def _drop_stale(kernel: Any, sources: list[Path]) -> None:
    """Remove the kernel's cached files that are older than a source."""
    newest = max((source.stat().st_mtime for source in sources), default=0.0)
    module = kernel.py_func.__module__.rpartition(".")[2]
    for cached in Path(kernel.stats.cache_path).glob(f"{module}.{kernel.py_func.__qualname__}-*.nb?"):
        if cached.stat().st_mtime < newest:
            cached.unlink(missing_ok=True)
