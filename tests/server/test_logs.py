"""What a real process writes to stderr: JSON lines, each of a request's with its id, and no traceback at a drain."""

import concurrent.futures
import json
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.server.harness import encode, sine
from tests.server.live import live_server

pytestmark = pytest.mark.timeout(90)

LONG = encode(sine(200))
CANCELLED = "Cancel 1 running task(s), timeout graceful shutdown exceeded"  # the web server's own
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_every_line_is_json_and_every_line_of_a_request_names_it(tmp_path: Path) -> None:
    """A request cut off by the drain wrote uvicorn's traceback beside our own line."""
    path = tmp_path / "log"
    with (
        path.open("w") as file,
        live_server(stderr=file, MODELS="fake", LOG_FORMAT="json", FAKE_WINDOW_SECONDS="1", DRAIN_SECONDS="1") as live,
        concurrent.futures.ThreadPoolExecutor(2) as threads,
    ):
        headers = {"X-Request-ID": "seek-me", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        httpx.post(f"{live.url}/classify", content=b"no sound", headers=headers)
        address = urlsplit(live.url)
        with socket.create_connection((address.hostname, address.port)) as caller:
            caller.sendall(b"no HTTP\r\n\r\n")
            assert caller.recv(12) == b"HTTP/1.1 400"
        cut_off = threads.submit(httpx.post, f"{live.url}/classify", content=LONG, headers=headers, timeout=60)
        while "hark_inflight_requests 2.0" not in httpx.get(f"{live.url}/metrics").text:
            pass
        live.process.send_signal(signal.SIGTERM)
        assert cut_off.result().status_code == 503
        assert live.process.wait(20) == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert not [line for line in lines if "exception" in line]
    ours = [line for line in lines if line.get("request_id") == "seek-me"]
    assert [line["event"] for line in ours] == ["refused", "request", "refused", "request"]
    assert {line["trace_id"] for line in ours} == {TRACE}
    others = [line["event"] for line in lines if line.get("request_id") != "seek-me"]
    assert others == ["model loaded", "ready", "refused", "draining", CANCELLED, "stopped"]
    [malformed] = [line for line in lines if line["event"] == "refused" and line["request_id"] != "seek-me"]
    assert "not a well-formed HTTP/1.1 request" in malformed["error"]
    assert lines[-1]["all_finished"] is False
