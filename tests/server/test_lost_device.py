"""A server whose device is lost: the request at fault fails, and the process ends for its supervisor to start anew."""

import subprocess
import sys
import textwrap

import httpx
import pytest

from tests.media import wav
from tests.server.live import READY, hark_environment

# The fake runtime loses its device at a clip of one certain length, as a GPU does at an illegal access.
SERVER = """
    from server.process import serve
    from server.runtimes.base import DeviceLostError
    from server.runtimes.fake import FakeRuntime
    from server.settings import Settings

    tag = FakeRuntime.run

    def run(self, waveforms, lengths, batches=1):
        if 12345 in lengths:
            raise DeviceLostError("an illegal memory access was encountered")
        return tag(self, waveforms, lengths, batches)

    FakeRuntime.run = run
    raise SystemExit(serve(Settings(runtime="fake", port=0)))
"""


@pytest.mark.timeout(300)
def test_the_process_says_why_and_ends_with_1():
    command = [sys.executable, "-c", textwrap.dedent(SERVER)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=hark_environment(), **pipes) as process:
        address = READY.fullmatch(process.stdout.readline())
        good, fatal = (wav(bytes(2 * samples)) for samples in (12000, 12345))
        assert httpx.post(f"{address[1]}/classify", content=good).status_code == 200
        answer = httpx.post(f"{address[1]}/classify", content=fatal)
        assert (answer.status_code, answer.json()["error_type"]) == (500, "inference_failed")
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "device cpu is lost" in errors
