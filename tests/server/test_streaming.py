"""`POST /classify` as a stream: windows as they are tagged, then the plain answer; errors, slow readers, who leaves."""

import asyncio
import json
from typing import Any

import httpx
import numpy as np
import pytest

from server import streaming
from server.service import Service
from server.streaming import NDJSON, SSE, choose_framing
from tests.server.harness import check_error, encode, fake_runtime, running, sine

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

CLIP = encode(sine(25))
AS_SSE = {"Accept": "text/event-stream"}
AS_LINES = {"Accept": "application/x-ndjson"}


def read_events(text: str) -> list[dict[str, Any]]:
    """A reader of event streams: blocks of `event` and `data` lines; comments are passed over."""
    messages = []
    assert text.endswith("\n\n")
    for block in text.removesuffix("\n\n").split("\n\n"):
        lines = [line for line in block.split("\n") if not line.startswith(":")]
        if not lines:
            continue
        fields = dict(line.split(": ", 1) for line in lines)
        assert list(fields) == ["event", "data"]
        messages.append(json.loads(fields["data"]))
        assert fields["event"] == messages[-1]["type"]
    return messages


def read_lines(text: str) -> list[dict[str, Any]]:
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


READERS = {"text/event-stream": read_events, "application/x-ndjson": read_lines}


@pytest.mark.parametrize("accept", READERS)
@pytest.mark.parametrize("query", ["top_k=2", "top_k=3&rollup=true&threshold=0.2&hop_seconds=2", "channels=split"])
async def test_windows_come_one_by_one_then_the_plain_answer(
    client: httpx.AsyncClient, accept: str, query: str
) -> None:
    response = await client.post(f"/classify?{query}", content=CLIP, headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["Content-Type"].split(";")[0] == accept
    assert "Content-Length" not in response.headers
    assert response.headers["X-Request-ID"]
    *windows, summary = READERS[accept](response.text)
    plain = (await client.post(f"/classify?{query}", content=CLIP)).json()
    assert {message["type"] for message in windows} == {"window"}
    progress = [message.pop("progress") for message in windows]
    assert progress == [
        {"heard_seconds": window["end_seconds"], "duration_seconds": 25.0} for window in plain["windows"]
    ]
    assert [{**message, "type": None} for message in windows] == [{**w, "type": None} for w in plain["windows"]]
    assert summary.pop("type") == "summary"
    assert list(summary) == list(plain)
    for changing in ("timing", "request_id"):
        summary.pop(changing)
        plain.pop(changing)
    assert summary == plain


async def test_a_duration_that_no_header_declares_is_null(client: httpx.AsyncClient) -> None:
    from tests.media import make

    aac = make("aac", sine(1)[:, None], 16_000)
    first = read_lines((await client.post("/classify", content=aac, headers=AS_LINES)).text)[0]
    assert first["progress"]["duration_seconds"] is None
    assert first["progress"]["heard_seconds"] == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    ("accept", "framing"),
    [
        ("", None),
        ("*/*", None),
        ("application/json", None),
        ("text/html,application/xhtml+xml,*/*;q=0.8", None),
        ("text/event-stream", SSE),
        ("Text/Event-Stream; charset=utf-8", SSE),
        ("application/x-ndjson", NDJSON),
        ("application/ndjson", NDJSON),
        ("application/json, text/event-stream", None),
        ("text/event-stream, application/json", SSE),
        ("application/json;q=0.5, text/event-stream", SSE),
        ("text/event-stream;q=0, application/json;q=0.1", None),
        ("text/event-stream;q=high, */*", None),
        ("application/x-ndjson;q=0.9, text/event-stream;q=0.8", NDJSON),
    ],
)
def test_what_an_accept_header_likes_best(accept: str, framing: streaming.Framing | None) -> None:
    assert choose_framing(accept) is framing


async def test_several_accept_headers_are_one_list(client: httpx.AsyncClient) -> None:
    """RFC 9110, 5.3: proxies split and join them; only the first was read."""
    headers = [("Accept", "application/json;q=0.1"), ("Accept", "text/event-stream")]
    response = await client.post("/classify", content=CLIP, headers=headers)
    assert response.headers["Content-Type"].startswith("text/event-stream")


async def test_what_fails_before_the_first_window_has_its_own_status(client: httpx.AsyncClient) -> None:
    send = client.post
    check_error(await send("/classify", content=b"text", headers=AS_SSE), 415, "audio_not_decodable")
    check_error(await send("/classify?top_k=0", content=CLIP, headers=AS_SSE), 422, "invalid_input")
    check_error(await send("/classify?model=none", content=CLIP, headers=AS_LINES), 404, "model_not_found")
    check_error(await send("/classify?window_seconds=60", content=CLIP, headers=AS_LINES), 422, "invalid_input")


async def test_a_stream_of_another_format_is_refused(client: httpx.AsyncClient) -> None:
    sentence = check_error(
        await client.post("/classify?format=csv", content=CLIP, headers=AS_SSE), 422, "invalid_input"
    )
    assert "format=csv" in sentence
    form = {"data": {"format": "raven"}, "files": {"file": ("clip.wav", CLIP)}}
    check_error(await client.post("/classify", headers=AS_SSE, **form), 422, "invalid_input")


@pytest.mark.parametrize("accept", READERS)
async def test_what_fails_later_is_the_last_message(client: httpx.AsyncClient, service: Service, accept: str) -> None:
    fake_runtime(service).broken_value = 0.75
    broken = sine(95)
    broken[-1] = 0.75
    response = await client.post("/classify", content=encode(broken), headers={"Accept": accept})
    messages = READERS[accept](response.text)
    assert response.status_code == 200
    assert [message["type"] for message in messages[-2:]] == ["window", "error"]
    assert messages[-1]["error_type"] == "inference_failed"
    assert messages[-1]["request_id"] == response.headers["X-Request-ID"]
    assert set(messages[-1]) == {"type", "error", "error_type", "request_id"}


async def test_heartbeats_keep_a_waiting_connection_alive(
    client: httpx.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.02)
    fake_runtime(service).batch_delay_seconds = 0.15
    text = (await client.post("/classify", content=CLIP, headers=AS_SSE)).text
    assert text.startswith(": ")
    assert text.count(": still tagging\n\n") >= 3
    assert [message["type"] for message in read_events(text)] == ["window"] * 3 + ["summary"]
    lines = (await client.post("/classify", content=CLIP, headers=AS_LINES)).text
    assert len(read_lines(lines)) == 4


async def test_a_failure_behind_a_heartbeat_is_a_message(
    client: httpx.AsyncClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.01)
    fake_runtime(service).batch_delay_seconds = 0.1
    response = await client.post("/classify?timeout_seconds=0.05", content=CLIP, headers=AS_SSE)
    (message,) = read_events(response.text)
    assert (response.status_code, message["error_type"]) == (200, "timeout")


class Reader:
    """A caller who sends a body and then reads, stalls or leaves as told."""

    def __init__(self, app: Any, body: bytes, query: bytes = b"") -> None:
        self._body = [{"type": "http.request", "body": body}]
        self.left = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self.taken: list[bytes] = []
        self.head: dict[str, Any] | None = None
        headers = [(b"accept", b"application/x-ndjson")]
        scope = {"type": "http", "method": "POST", "path": "/classify", "headers": headers, "query_string": query}
        self.running = asyncio.create_task(app({**scope, "asgi": {"version": "3.0"}}, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            return self._body.pop()
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await self.reads.wait()
        if message["type"] == "http.response.start":
            self.head = message
        elif message["body"]:
            self.taken.append(message["body"])

    async def until(self, windows: int) -> None:
        async with asyncio.timeout(10):
            while len(self.taken) < windows:
                await asyncio.sleep(0.005)


def app_of(client: httpx.AsyncClient) -> Any:
    return client._transport.app  # type: ignore[attr-defined]


async def test_the_first_windows_arrive_while_the_rest_is_tagged(client: httpx.AsyncClient, service: Service) -> None:
    fake_runtime(service).batch_delay_seconds = 0.02
    reader = Reader(app_of(client), encode(sine(300)))
    await reader.until(windows=2)
    assert not reader.running.done()
    assert len(fake_runtime(service).calls) < 30
    await reader.running
    assert len(reader.taken) == 31


async def test_a_slow_reader_slows_the_tagging_and_nothing_piles_up(
    client: httpx.AsyncClient, service: Service
) -> None:
    reader = Reader(app_of(client), encode(sine(600)), b"hop_seconds=1")
    await reader.until(windows=3)
    reader.reads.clear()
    tagged = service.metrics.registry.get_sample_value
    await asyncio.sleep(0.3)
    heard = tagged("hark_windows_total", {"model": "fake"})
    assert heard <= len(reader.taken) + 2 + service.settings.max_request_windows_in_flight
    reader.reads.set()
    await reader.running
    assert len(read_lines(b"".join(reader.taken).decode())) == 592


async def test_a_reader_who_takes_nothing_is_given_up() -> None:
    async with running(stream_idle_seconds=0.1) as (client, service):
        reader = Reader(app_of(client), encode(sine(600)))
        await reader.until(windows=1)
        reader.reads.clear()
        await asyncio.wait_for(reader.running, 5)
        assert service.metrics.registry.get_sample_value("hark_cancelled_total") == 1
        assert not service.engine._queue.jobs


async def test_a_long_summary_is_given_to_the_connection_piece_by_piece(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader who read all the time was given up, as the idle time was that of the whole summary: 100 MB at once."""
    monkeypatch.setattr(streaming, "SEND_BYTES", 1000)
    reader = Reader(app_of(client), CLIP, b"top_k=50")
    await reader.running
    assert max(map(len, reader.taken)) == 1000
    messages = read_lines(b"".join(reader.taken).decode())
    assert [message["type"] for message in messages] == ["window"] * 3 + ["summary"]


async def test_a_reader_who_leaves_cancels_the_rest(client: httpx.AsyncClient, service: Service) -> None:
    fake_runtime(service).batch_delay_seconds = 0.02
    reader = Reader(app_of(client), encode(sine(600)), b"hop_seconds=1")
    await reader.until(windows=2)
    reader.left.set()
    await asyncio.wait_for(reader.running, 5)
    assert len(fake_runtime(service).calls) < 100
    assert service.metrics.registry.get_sample_value("hark_cancelled_total") == 1
    assert not service.engine._queue.jobs
    assert (await client.post("/classify", content=encode(sine(1)))).status_code == 200


async def test_every_channel_has_its_own_timeline(client: httpx.AsyncClient) -> None:
    """Each channel of a split answer is what the same channel alone answers."""
    left, right = sine(25, 300), 0.2 * sine(25, 2000)
    stereo = encode(np.stack([left, right], axis=1))
    split = (await client.post("/classify?channels=split&top_k=3", content=stereo)).json()
    assert [(w["channel"], w["start_seconds"]) for w in split["windows"]] == [
        *((0, 0.0), (1, 0.0), (0, 10.0), (1, 10.0), (0, 15.0), (1, 15.0)),
    ]
    assert [tags["channel"] for tags in split["channels"]] == [0, 1]
    for channel, waveform in enumerate((left, right)):
        alone = (await client.post("/classify?top_k=3", content=encode(waveform))).json()
        assert split["channels"][channel]["labels"] == alone["labels"]
        for kind in ("windows", "events"):
            own = [
                {k: v for k, v in item.items() if k != "channel"} for item in split[kind] if item["channel"] == channel
            ]
            assert own == alone[kind]
    best = max(label["score"] for tags in split["channels"] for label in tags["labels"])
    assert split["labels"][0]["score"] == best


async def test_too_many_channels_are_refused_with_both_numbers() -> None:
    async with running(max_channels=2) as (client, _):
        three = encode(np.stack([sine(1)] * 3, axis=1))
        sentence = check_error(await client.post("/classify?channels=split", content=three), 422, "invalid_input")
        assert "3 channels" in sentence
        assert "at most 2" in sentence
        assert (await client.post("/classify", content=three)).status_code == 200


async def test_channels_count_as_windows() -> None:
    async with running(max_request_windows=5) as (client, _):
        stereo = encode(np.stack([sine(25)] * 2, axis=1))
        check_error(await client.post("/classify?channels=split", content=stereo), 422, "invalid_input")
        assert (await client.post("/classify", content=stereo)).status_code == 200


async def test_a_batch_request_is_answered_too(client: httpx.AsyncClient, service: Service) -> None:
    priorities = []
    admit = service.engine.admit

    def watch(*arguments: Any, **named: Any) -> Any:
        job = admit(*arguments, **named)
        priorities.append(job.priority)
        return job

    service.engine.admit = watch  # type: ignore[method-assign]
    for query in ("", "?priority=batch"):
        assert (await client.post(f"/classify{query}", content=encode(sine(1)))).status_code == 200
    assert priorities == ["interactive", "batch"]
