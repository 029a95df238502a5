"""A runtime with a process of its own, so that under load answering and tagging do not wait for one interpreter.

A batch alone runs here: there is nobody to wait for, and the way to another process takes a few milliseconds.

    engine's threads ── waveforms ─────────────────► one connection for each ──► threads of the process ── runtime.run
                     ◄── logits, embeddings, or what was raised ───────────────

What crashes that process leaves the server: another takes its place. It is started as
`python -m server.runtimes.separate FILE_DESCRIPTOR...`, and ends when its connections do.
"""

import ctypes
import gc
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import structlog

from server.runtimes.base import BatchResult, DeviceLostError, ProcessEndedError, Runtime

log = structlog.get_logger()

Open = Callable[[], Runtime]
"""Opens the runtime in the other process; it is pickled: a function of a module, with its arguments."""

CLOSE_SECONDS = 5.0
NICENESS = 5  # whoever answers requests comes first: refusals are quick while all cores tag
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h


class _GoneError(Exception):
    """Nobody is at the other end of a connection."""


class SeparateRuntime:
    """A runtime `here` for batches alone, and for batches side by side what `open_runtime` opens in another process.

    Of its batches some lie ready there for a core to be free. When the process ends, another is started and its batches
    fail; the engine then tries their halves again.
    """

    ready_batches = 1

    def __init__(self, here: Runtime, open_runtime: Open) -> None:
        """Raises: what `open_runtime` raises; DeviceLostError where the process ends before the runtime is open."""
        self.info, self.most_batches = here.info, here.most_batches + self.ready_batches
        self._here, self._open_runtime = here, open_runtime
        self._changing = threading.Lock()
        self._closed = False
        self._process = _Process(open_runtime, self.most_batches)

    def run(self, waveforms: np.ndarray, lengths: np.ndarray, batches: int = 1) -> BatchResult:
        """As any runtime's. Raises: ProcessEndedError too, and DeviceLostError where another process cannot start."""
        if batches == 1:
            return self._here.run(waveforms, lengths)
        process = self._process
        try:
            result: BatchResult = process.ask((waveforms, lengths, batches))
        except _GoneError as error:
            code = self._replace(process)
            raise ProcessEndedError(f"the process that tags ended with code {code}") from error
        return result

    def close(self) -> None:
        """Ends the process, and closes the runtime here."""
        with self._changing:
            self._closed = True
            self._process.close()
        self._here.close()

    def _replace(self, ended: "_Process") -> int:
        """Starts another process, unless another batch of the ended one's has done so; returns its exit code."""
        with self._changing:
            code = ended.kill()
            if self._process is ended and not self._closed:
                log.error("the process that tags has ended, and is started anew", code=code)
                try:
                    self._process = _Process(self._open_runtime, self.most_batches)
                except Exception as error:
                    raise DeviceLostError(f"the process that tags cannot be started anew: {error}") from error
        return code


class _Process:
    """One process with a runtime, and its connections: as many as batches may be there at a time."""

    def __init__(self, open_runtime: Open, connections: int) -> None:
        ours, theirs = zip(*(Pipe() for _ in range(connections)), strict=True)
        descriptors = [connection.fileno() for connection in theirs]
        command = [sys.executable, "-P", "-m", __name__, *map(str, descriptors)]
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)  # ours, and nothing before it
        # A process group of its own: Ctrl-C means the server, which ends when it has answered what it accepted.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
            process_group=0,
            env={**os.environ, "PYTHONPATH": path},
        )
        for connection in theirs:
            connection.close()
        self._closing = False
        self._free: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        for connection in ours:
            self._free.put(connection)
        try:
            self.ask(open_runtime)
        except _GoneError as error:
            raise DeviceLostError(f"the process that tags ended with code {self.kill()} as it started") from error
        except BaseException:
            self.kill()
            raise

    def ask(self, question: object) -> Any:
        """Sends a question over a free connection and waits for its answer; raises what the other side did.

        Raises: _GoneError where the process has ended.
        """
        connection = self._free.get()
        try:
            connection.send(question)
            succeeded, answer = connection.recv()
        except (EOFError, OSError) as error:
            raise _GoneError from error
        finally:
            if self._closing:
                connection.close()
            self._free.put(connection)
        if not succeeded:
            raise answer
        return answer

    def close(self) -> None:
        """Ends the process as soon as its batches are done, or after a while."""
        self._closing = True
        free = []
        with suppress(queue.Empty):
            while True:  # one in use is closed by who uses it: its number could be another file's before it is read
                free.append(self._free.get_nowait())
        for connection in free:
            connection.close()
            self._free.put(connection)  # for who waits for one, and finds it closed
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_SECONDS)
        self.kill()

    def kill(self) -> int:
        """Ends the process at once, if it still runs; its exit code, or less than 0 the signal's number."""
        self._process.kill()
        return self._process.wait()


def _keep_memory() -> None:
    """Has the C library keep what is freed: the next batch asks for the same, and new pages cost a tenth of its time.

    Measured with aum-tiny on two cores, two batches of four windows side by side: 171 windows a second against 154.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc's
        for option, size in ((M_MMAP_THRESHOLD, 2**25), (M_TRIM_THRESHOLD, 2**30), (M_TOP_PAD, 2**26)):
            library.mallopt(option, size)


def _places(batches: int) -> "queue.SimpleQueue[set[int]]":
    """Where so many batches may run: a core for each where there are no more cores than that, else anywhere.

    Linux often runs a thread where the one that woke it was, and then two batches share a core while another idles.
    Measured with aum-tiny on two cores: a twentieth more clips a second, and an eighth more at three times the load.
    """
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set[int]()
    places: queue.SimpleQueue[set[int]] = queue.SimpleQueue()
    for place in [{core} for core in cores] if len(cores) == batches else [cores] * batches:
        places.put(place)
    return places


def main() -> None:
    """Opens the runtime that the first message asks for, and runs batches until the connections end."""
    for number in (signal.SIGINT, signal.SIGTERM):  # for the server, which finishes what it has accepted
        signal.signal(number, signal.SIG_IGN)
    gc.disable()  # until all is loaded: to look through it again and again takes a third of a second
    _keep_memory()
    connections = [Connection(int(descriptor)) for descriptor in sys.argv[1:]]
    try:
        runtime: Runtime = connections[0].recv()()
    except EOFError:
        return
    except Exception as error:
        with suppress(OSError):
            connections[0].send((False, _told(error)))
        return
    gc.freeze()
    gc.enable()
    os.nice(NICENESS)
    places = _places(runtime.most_batches)
    with suppress(OSError):
        connections[0].send((True, None))
    threads = [threading.Thread(target=_serve, args=(connection, runtime, places)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _serve(connection: Connection, runtime: Runtime, places: "queue.SimpleQueue[set[int]]") -> None:
    """Answers one connection until it ends, or something goes wrong with it."""
    with connection, suppress(EOFError, OSError):
        while True:
            waveforms, lengths, batches = connection.recv()
            answer: tuple[bool, object]
            place = places.get()
            try:
                _stay_on(place)
                answer = True, runtime.run(waveforms, lengths, min(batches, runtime.most_batches))
            except Exception as error:
                answer = False, _told(error)
            finally:
                places.put(place)
            connection.send(answer)


def _stay_on(cores: set[int]) -> None:
    """Keeps this thread on these cores, if they are still the process's; what it starts would stay there, too."""
    if cores:
        with suppress(OSError):
            os.sched_setaffinity(0, cores)


def _told(error: Exception) -> Exception:
    """An exception with its traceback as a note, or its words where it cannot be pickled."""
    note = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error


if __name__ == "__main__":
    main()
    os._exit(0)  # libraries' own threads have nothing to finish
