"""A runtime that does as its batches say, for tests in which another process runs it; quick to import."""

import os
import signal
import time

import numpy as np

from server.runtimes.base import BatchResult, DeviceOutOfMemoryError
from server.runtimes.fake import FakeRuntime


class OddError(Exception):
    """Cannot be pickled: it takes two arguments and keeps one."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


class Scripted(FakeRuntime):
    """Does what the first sample of a batch says; else its logits tell its process, `batches`, and how many cores."""

    most_batches = 3

    def run(self, waveforms: np.ndarray, lengths: np.ndarray, batches: int = 1) -> BatchResult:
        match int(waveforms[0, 0]):
            case 1:
                raise DeviceOutOfMemoryError("too much")
            case 2:
                raise OddError("odd", "indeed")
            case 3:
                os.kill(os.getpid(), signal.SIGKILL)
            case 4:
                time.sleep(0.5)
            case 5:
                raise FileNotFoundError("gone")
            case 6:
                raise SystemExit
        result = super().run(waveforms, lengths, batches)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        result.logits[:, :3] = os.getpid() % 2**20, batches, cores
        return result


def open_scripted() -> Scripted:
    return Scripted(3)


def open_never(error: type[Exception] | None = None) -> Scripted:
    if error is None:
        os._exit(7)
    raise error("cannot be opened")
