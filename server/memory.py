"""How much memory the device holds for this server."""

import os
import sys
from contextlib import suppress
from pathlib import Path


def device_memory_bytes() -> float:
    """Bytes that torch reserved on the GPUs, or, without one, resident memory (0 where unknown).

    Resident memory is this process's and its children's, for batches side by side have a process of their own.
    """
    torch = sys.modules.get("torch")  # asking must not import or initialise anything
    if torch is not None and torch.cuda.is_initialized():
        return float(sum(torch.cuda.memory_reserved(index) for index in range(torch.cuda.device_count())))
    return float(resident_bytes(os.getpid()))


def resident_bytes(process: int) -> int:
    """Resident memory of a process and its children; 0 where there is no /proc, or the process has ended."""
    folder = Path("/proc", str(process))
    try:
        pages = int((folder / "statm").read_text().split()[1])
        threads = list(folder.glob("task/*/children"))
    except OSError:
        return 0
    children = [child for thread in threads for child in _numbers(thread)]
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(resident_bytes, children))


def _numbers(file: Path) -> list[int]:
    with suppress(OSError):  # a thread that ended meanwhile has no children
        return [int(word) for word in file.read_text().split()]
    return []
