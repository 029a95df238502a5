"""A real process on a real port: what only sockets, signals and other people's clients can show."""

import concurrent.futures
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import httpx
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import BadRequestError, HfHubHTTPError

from tests.server.harness import check_error, encode, sine
from tests.server.live import hark_environment, live_server

pytestmark = [pytest.mark.timeout(90)]

CLIP = encode(sine(1))
LONG = encode(sine(200))


def test_the_hugging_face_client_as_it_is() -> None:
    with live_server(MODELS="fake,other") as live:
        client = InferenceClient(model=live.url)
        labels = client.audio_classification(CLIP)
        assert len(labels) == 5
        assert labels[0].score >= labels[1].score
        assert len(client.audio_classification(CLIP, top_k=3, function_to_apply="softmax")) == 3
        other = InferenceClient(model=f"{live.url}/models/other")
        assert other.audio_classification(CLIP)[0].label == labels[0].label
        with pytest.raises((BadRequestError, HfHubHTTPError), match="not"):
            client.audio_classification(b"this is no audio")
        assert InferenceClient(base_url=live.url, provider="hf-inference").get_endpoint_info()["name"] == "hark"


def test_sigterm_loses_no_accepted_request() -> None:
    with live_server(FAKE_WINDOW_SECONDS="0.02") as live, concurrent.futures.ThreadPoolExecutor(8) as threads:
        posts = [threads.submit(httpx.post, f"{live.url}/classify", content=LONG, timeout=60) for _ in range(6)]
        wait_for(lambda: "hark_inflight_requests 7.0" in httpx.get(f"{live.url}/metrics").text)
        live.process.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{live.url}/readyz").status_code == 503)
        check_error(httpx.post(f"{live.url}/classify", content=CLIP), 503, "not_ready")
        assert httpx.get(f"{live.url}/livez").status_code == 200
        assert httpx.head(f"{live.url}/livez").content == b""
        assert [post.result().status_code for post in posts] == [200] * 6
        assert live.process.wait(20) == 0


def test_a_second_signal_ends_at_once() -> None:
    with live_server(FAKE_WINDOW_SECONDS="0.2") as live, concurrent.futures.ThreadPoolExecutor(1) as threads:
        post = threads.submit(httpx.post, f"{live.url}/classify", content=LONG, timeout=60)
        wait_for(lambda: "hark_inflight_requests 2.0" in httpx.get(f"{live.url}/metrics").text)
        live.process.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{live.url}/readyz").status_code == 503)
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(2) == 128 + signal.SIGTERM
        assert isinstance(post.exception(), httpx.HTTPError)


def test_a_body_over_the_limit_gets_its_answer_over_the_wire() -> None:
    with live_server(MAX_UPLOAD_BYTES="100000") as live, httpx.Client(base_url=live.url) as client:
        check_error(client.post("/classify", content=LONG), 413, "audio_too_large")
        check_error(client.post("/classify", content=iter([LONG[:90_000], LONG[90_000:]])), 413, "audio_too_large")
        assert client.post("/classify", content=CLIP).status_code == 200


def test_a_caller_who_hangs_up_cancels_the_work() -> None:
    with live_server(MODELS="fake", FAKE_WINDOW_SECONDS="0.2") as live:
        address = urlsplit(live.url)
        with socket.create_connection((address.hostname, address.port)) as caller:
            head = f"POST /classify HTTP/1.1\r\nHost: hark\r\nContent-Length: {len(LONG)}\r\n\r\n"
            caller.sendall(head.encode() + LONG)
            wait_for(lambda: 'hark_windows_total{model="fake"} ' in httpx.get(f"{live.url}/metrics").text)
        wait_for(lambda: "hark_cancelled_total 1.0" in httpx.get(f"{live.url}/metrics").text)
        assert httpx.post(f"{live.url}/classify", content=CLIP).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "named"), [(("--model", "nope"), "nope"), (("--device", "zzz"), "there is no device 'zzz'")]
)
def test_a_failed_start_exits_with_1_and_says_why(arguments: tuple[str, ...], named: str) -> None:
    """Stopping after a failed load overwrote the state "failed" with "draining", and the process ended with 0."""
    command = [sys.executable, "-m", "server.cli", "serve", "--port", "0", *arguments]
    ended = subprocess.run(command, env=hark_environment(), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    said = [line for line in ended.stderr.splitlines() if line.startswith("hark: ")]
    assert len(said) == 1
    assert named in said[0]
    assert "Traceback" not in ended.stderr


def test_the_end_of_the_drain_comes_once_and_is_answered() -> None:
    """Draining waited HARK_DRAIN_SECONDS twice, and who was cut off then got a bare 500 in plain text."""
    with (
        live_server(MODELS="fake", FAKE_WINDOW_SECONDS="1", DRAIN_SECONDS="1") as live,
        concurrent.futures.ThreadPoolExecutor(1) as threads,
    ):
        post = threads.submit(httpx.post, f"{live.url}/classify", content=LONG, timeout=60)
        wait_for(lambda: "hark_inflight_requests 2.0" in httpx.get(f"{live.url}/metrics").text)
        started = time.monotonic()
        live.process.send_signal(signal.SIGTERM)
        check_error(post.result(), 503, "not_ready")
        assert post.result().headers["Retry-After"]
        assert time.monotonic() - started < 3
        assert live.process.wait(10) == 0


def wait_for(condition, seconds: float = 10) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
