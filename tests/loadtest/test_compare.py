"""The load test as people run it, against a real server on the fake runtime."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.server.live import live_server


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "loadtest.compare", *arguments], capture_output=True, text=True)


# Looked up, not imported: importing locust replaces threads and sockets by gevent's in the whole test process.
@pytest.mark.skipif(find_spec("locust") is None, reason="needs the load extra")
def test_it_compares_the_served_models_in_one_table(tmp_path: Path):
    with live_server(MODELS="first,second", API_KEYS="secret") as live:
        done = compare(
            *("--url", live.url, "--key", "secret", "--folder", str(tmp_path), "--model", "second"),
            *("--seconds", "1", "--callers", "2", "--loads", "0.5"),
        )
    assert done.returncode == 0, done.stderr
    runs = [line.split(" | ")[0].strip("| ") for line in done.stdout.splitlines() if line.startswith("| second")]
    assert runs == ["second idle", "second 2 callers", "second at 50%"]
    requests = [json.loads(line) for line in (tmp_path / "second at 50%.jsonl").read_text().splitlines()]
    assert {request["status"] for request in requests} == {200}
    assert all("inference" in request["server_timing"] for request in requests)
    assert (tmp_path / "latencies.png").exists()


def test_without_a_server_it_says_so_in_one_line(tmp_path: Path):
    done = compare("--url", "http://127.0.0.1:9", "--folder", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("loadtest: no server answers at http://127.0.0.1:9")
    assert done.stderr.count("\n") == 1
