"""A runtime with processes of its own, so that under load no two batches, nor answering, wait for one interpreter.

A batch alone runs here: there is nobody to wait for, and the way to another process takes a few milliseconds.

    engine's threads ── waveforms ───────────────► two connections ──► process on core 0: one batch runs, one lies ready
                     ◄── logits, embeddings, ──── two connections ──► process on core 1: the same
                         or what was raised

The first opens the runtime and divides itself (Linux): what it has loaded is held once. Elsewhere it stays one process
with a thread for each batch. What crashes one of them leaves the server: all are started anew. The first is started as
`python -m server.runtimes.separate FILE_DESCRIPTOR...`; each ends when its connections do.
"""

import ctypes
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
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

DIVIDES = sys.platform == "linux"
BATCHES_PER_CORE = 2  # one runs, one lies ready, for this core alone
CLOSE_SECONDS = 5.0
NICENESS = 5  # whoever answers requests comes first: refusals are quick while all cores tag
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # of malloc.h


class _GoneError(Exception):
    """Nobody is at the other end of a connection."""


class SeparateRuntime:
    """A runtime `here` for batches alone, and for batches side by side what `open_runtime` opens in other processes.

    When one of these ends, all are started anew and their batches fail; the engine then tries their halves again.
    """

    def __init__(self, here: Runtime, open_runtime: Open) -> None:
        """Raises: what `open_runtime` raises; DeviceLostError where the process ends before the runtime is open."""
        self.info, self.most_batches = here.info, BATCHES_PER_CORE * here.most_batches
        self.ready_batches = self.most_batches - here.most_batches
        self.independent_batches = here.most_batches if DIVIDES else 1
        self._here, self._open_runtime = here, open_runtime
        self._changing = threading.Lock()
        self._closed = False
        self._processes = _Processes(open_runtime, here.most_batches)

    def run(self, waveforms: np.ndarray, lengths: np.ndarray, batches: int = 1) -> BatchResult:
        """As any runtime's. Raises: ProcessEndedError too, and DeviceLostError where another process cannot start."""
        if batches == 1:
            return self._here.run(waveforms, lengths)
        processes = self._processes
        try:
            result: BatchResult = processes.ask((waveforms, lengths, batches))
        except _GoneError as error:
            code = self._replace(processes)
            raise ProcessEndedError(f"the process that tags ended with code {code}") from error
        return result

    def close(self) -> None:
        """Ends the processes, and closes the runtime here."""
        with self._changing:
            self._closed = True
            self._processes.close()
        self._here.close()

    def _replace(self, ended: "_Processes") -> int:
        """Starts other processes, unless another batch of the ended ones' has done so; returns their exit code."""
        with self._changing:
            code = ended.kill()
            if self._processes is ended and not self._closed:
                log.error("the process that tags has ended, and is started anew", code=code)
                try:
                    self._processes = _Processes(self._open_runtime, self._here.most_batches)
                except Exception as error:
                    raise DeviceLostError(f"the process that tags cannot be started anew: {error}") from error
        return code


class _Processes:
    """The processes with a runtime, one for each of so many cores, and the connections to them."""

    def __init__(self, open_runtime: Open, cores: int) -> None:
        ours, theirs = zip(*(Pipe() for _ in range(BATCHES_PER_CORE * cores)), strict=True)
        descriptors = [connection.fileno() for connection in theirs]
        command = [sys.executable, "-P", "-m", __name__, *map(str, descriptors)]
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)  # ours, and nothing before it
        # A process group of its own: Ctrl-C means the server, which ends when it has answered what it accepted.
        self._first = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
            process_group=0,
            env={**os.environ, "PYTHONPATH": path},
        )
        for connection in theirs:
            connection.close()
        self._closing = False
        self._free = [[*_of_core(ours, core)] for core in range(cores)]
        self._freed = threading.Condition()  # guards the free connections of each core
        try:
            self.ask(open_runtime)
        except _GoneError as error:
            raise DeviceLostError(f"the process that tags ended with code {self.kill()} as it started") from error
        except BaseException:
            self.kill()
            raise

    def ask(self, question: object) -> Any:
        """Sends a question to the process that has fewest, and waits for its answer; raises what the other side did.

        Raises: _GoneError where the process has ended.
        """
        with self._freed:
            self._freed.wait_for(lambda: any(self._free))
            free = max(self._free, key=len)
            connection = free.pop(0)
        try:
            connection.send(question)
            succeeded, answer = connection.recv()
        except (EOFError, OSError) as error:
            raise _GoneError from error
        finally:
            with self._freed:
                if self._closing:
                    connection.close()
                free.append(connection)  # closed ones, too: for who waits for one
                self._freed.notify()
        if not succeeded:
            raise answer
        return answer

    def close(self) -> None:
        """Ends the processes as soon as their batches are done, or after a while."""
        with self._freed:
            self._closing = True
            for free in self._free:  # one in use is closed by who uses it: its number could be another file's by then
                for connection in free:
                    connection.close()
        if self._first.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                self._first.wait(CLOSE_SECONDS)
            self._kill_group()  # also where the first has ended: others may not have
            self._first.wait()

    def kill(self) -> int:
        """Ends the processes at once, if they still run; the first one's exit code, or less than 0 a signal's number.

        SIGKILL's number so also stands for whatever ended another of them.
        """
        if self._first.returncode is None:  # until it has been waited for, its number is that of its group
            self._kill_group()
        return self._first.wait()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):  # of a group whose processes have all ended, by system
            os.killpg(self._first.pid, signal.SIGKILL)


def _keep_memory() -> None:
    """Has the C library keep what is freed: the next batch asks for the same, and new pages cost a tenth of its time.

    Measured with aum-tiny on two cores, two batches of four windows side by side: 171 windows a second against 154.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc's
        for option, size in ((M_MMAP_THRESHOLD, 2**25), (M_TRIM_THRESHOLD, 2**30), (M_TOP_PAD, 2**26)):
            library.mallopt(option, size)


def _of_core(connections: Sequence[Connection], core: int) -> Sequence[Connection]:
    return connections[BATCHES_PER_CORE * core : BATCHES_PER_CORE * (core + 1)]


def _divide(connections: Sequence[Connection]) -> Sequence[Connection]:
    """Goes on as a process for each core, with its connections; stays one where a process cannot safely be divided.

    Where there are no more cores than that, each stays on one: Linux often runs a thread where the one that woke it
    was, and then two batches share a core while another idles. Measured with aum-tiny on two cores: a twentieth more
    clips a second, and an eighth more at three times the load.
    """
    if not DIVIDES:
        return connections
    cores = len(connections) // BATCHES_PER_CORE
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # OpenBLAS' threads bear it
        core = next((core for core in range(1, cores) if os.fork() == 0), 0)
    ours = _of_core(connections, core)
    for connection in connections:
        if connection not in ours:
            connection.close()
    if len(places := sorted(os.sched_getaffinity(0))) == cores:
        with suppress(OSError):
            os.sched_setaffinity(0, {places[core]})
    return ours


def main() -> None:
    """Opens the runtime that the first message asks for, and runs batches until the connections end."""
    for number in (signal.SIGINT, signal.SIGTERM):  # for the server, which finishes what it has accepted
        signal.signal(number, signal.SIG_IGN)
    gc.disable()  # until all is loaded: to look through it again and again takes a third of a second
    _keep_memory()
    connections: Sequence[Connection] = [Connection(int(descriptor)) for descriptor in sys.argv[1:]]
    try:
        runtime: Runtime = connections[0].recv()()
        os.nice(NICENESS)
        gc.freeze()
        ours = _divide(connections)
    except EOFError:
        return
    except Exception as error:
        with suppress(OSError):
            connections[0].send((False, _told(error)))
        return
    gc.enable()
    running = threading.Semaphore(len(ours) // BATCHES_PER_CORE)
    if connections[0] in ours:
        with suppress(OSError):
            connections[0].send((True, None))
    threads = [threading.Thread(target=_serve, args=(connection, runtime, running)) for connection in ours]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _serve(connection: Connection, runtime: Runtime, running: threading.Semaphore) -> None:
    """Answers one connection until it ends, or something goes wrong with it."""
    with connection, suppress(EOFError, OSError):
        while True:
            waveforms, lengths, batches = connection.recv()
            answer: tuple[bool, object]
            try:
                with running:
                    answer = True, runtime.run(waveforms, lengths, min(batches, runtime.most_batches))
            except Exception as error:
                answer = False, _told(error)
            connection.send(answer)


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
