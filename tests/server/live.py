"""A real server process on the fake runtime, for tests that need a port."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

READY = re.compile(r"Hark is ready: (http://\S+?)/?\n")


@dataclass(frozen=True)
class Live:
    """Where the server answers, and its process."""

    url: str
    process: subprocess.Popen[str]


def hark_environment(**settings: str) -> dict[str, str]:
    """This process's environment with these settings of Hark and no others."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("HARK_")}
    return {**others, **{f"HARK_{name}": value for name, value in settings.items()}}


@contextmanager
def live_server(*arguments: str, stderr: IO[Any] | int = subprocess.DEVNULL, **settings: str) -> Iterator[Live]:
    """`hark serve` on a free port with settings such as MODELS="a,b"; ended by SIGTERM where it still runs."""
    command = [sys.executable, "-m", "server.cli", "serve", "--port", "0", *arguments]
    environment = hark_environment(**{"RUNTIME": "fake", **settings})
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
    with process:
        try:
            assert process.stdout is not None
            address = READY.fullmatch(process.stdout.readline())
            assert address, "the server ended before it was ready"
            yield Live(address[1], process)
        finally:
            process.terminate()
            process.wait(timeout=30)
