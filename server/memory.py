"""How much memory the device holds for this process."""

import os
import sys
from pathlib import Path


def device_memory_bytes() -> float:
    """Bytes that torch reserved on the GPUs, or, without one, the process's resident memory (0 where unknown)."""
    torch = sys.modules.get("torch")  # asking must not import or initialise anything
    if torch is not None and torch.cuda.is_initialized():
        return float(sum(torch.cuda.memory_reserved(index) for index in range(torch.cuda.device_count())))
    try:
        resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return float(resident_pages * os.sysconf("SC_PAGE_SIZE"))
