"""How much memory the device holds for this server."""

import os
import sys
from pathlib import Path


def device_memory_bytes() -> float:
    """Bytes that torch reserved on the GPUs, or, without one, resident memory (0 where unknown).

    Resident memory is this process's and its children's, for batches side by side have a process of their own.
    """
    torch = sys.modules.get("torch")  # asking must not import or initialise anything
    if torch is not None and torch.cuda.is_initialized():
        return float(sum(torch.cuda.memory_reserved(index) for index in range(torch.cuda.device_count())))
    return float(_resident_bytes("self"))


def _resident_bytes(process: str) -> int:
    folder = Path("/proc", process)
    try:
        pages = int((folder / "statm").read_text().split()[1])
        children = [child for path in folder.glob("task/*/children") for child in path.read_text().split()]
    except OSError:
        return 0  # there is no /proc here, or the process has just ended
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(_resident_bytes, children))
