"""`WS /stream`: tags while the sound still comes, each event once, a clear word and code for whatever goes wrong."""

import asyncio
import json
from typing import Any

import numpy as np
import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError

from server import live_sound, live_stream
from server.app import create_app
from server.routes import stream
from server.settings import Settings
from tests.server.harness import RATE, fake_runtime, running, sine, started
from tests.server.live import live_server
from tests.server.sockets import START, connected

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]


def changing(seconds: int) -> np.ndarray:
    """A sound whose loudness and pitch change every second, so that labels come and go: float32 (samples,)."""
    generator = np.random.default_rng(1)
    parts = [generator.random() * sine(1, 200 + 3000 * generator.random()) for _ in range(seconds)]
    return np.concatenate(parts).astype(np.float32)


def app_of(client: Any) -> Any:
    return client._transport.app


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in messages]


async def test_a_stream_says_what_the_same_sound_as_a_file_says(client: Any) -> None:
    """Frames of any size, resampling included, change nothing."""
    waveform = changing(14)
    asked = {"window_seconds": 2.0, "hop_seconds": 0.5, "top_k": 3}
    whole = (await client.post("/classify", params=asked, content=encode_float(waveform))).json()
    async with connected(app_of(client)) as socket:
        await socket.send({**START, **asked})
        for part in np.array_split(waveform, [1, 5, 700, 16_000, 16_001, 90_000, 90_000]):
            await socket.send(part)
        await socket.send({"end": True})
        messages = await socket.rest()
    assert socket.closed == 1000
    assert messages[0]["type"] == "ready"
    assert (messages[0]["model"], messages[0]["window_seconds"], messages[0]["hop_seconds"]) == ("fake", 2.0, 0.5)
    assert [plain(message) for message in messages if message["type"] == "window"] == whole["windows"]
    events = [plain(message) for message in messages if message["type"] == "event"]
    assert len(events) > 10
    assert sorted(events, key=order) == sorted(whole["events"], key=order)
    summary = messages[-1]
    assert summary["type"] == "summary"
    assert summary["labels"] == whole["labels"]
    assert (summary["duration_seconds"], summary["window_count"]) == (14.0, len(whole["windows"]))
    assert summary["event_count"] == len(events)
    assert summary["provenance"] == whole["provenance"]
    assert summary["request_id"] == messages[0]["request_id"]


def encode_float(waveform: np.ndarray) -> bytes:
    """A WAV of floats, which loses nothing."""
    import io

    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform, RATE, format="WAV", subtype="FLOAT")
    return file.getvalue()


def plain(message: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key != "type"}


def order(event: dict[str, Any]) -> tuple[Any, ...]:
    return event["start_seconds"], event["mid"]


async def test_each_event_is_told_once_and_begins_before_it_ends(client: Any) -> None:
    async with connected(app_of(client)) as socket:
        await socket.send({**START, "window_seconds": 1.0, "hop_seconds": 0.5})
        await socket.send(changing(12))
        await socket.send({"end": True})
        messages = await socket.rest()
    begun: set[str] = set()
    ended = []
    for message in messages:
        if message["type"] == "event_started":
            assert message["mid"] not in begun
            begun.add(message["mid"])
        elif message["type"] == "event":
            begun.remove(message["mid"])
            ended.append((message["mid"], message["start_seconds"]))
    assert not begun
    assert len(ended) == len(set(ended)) > 5


async def test_tags_come_while_the_sound_still_comes(client: Any) -> None:
    """The window that a sound completes is answered at once: nobody waits for the next one, or for the end."""
    async with connected(app_of(client)) as socket:
        await socket.send({**START, "window_seconds": 1.0, "hop_seconds": 0.5})
        await socket.send(sine(1.0))
        first = await socket.until("window")
        assert (first["start_seconds"], first["end_seconds"]) == (0.0, 1.0)
        assert (await socket.until("event_started"))["start_seconds"] == 0.0
        await socket.send(sine(0.25))
        await socket.send(sine(0.25))
        assert (await socket.until("window"))["end_seconds"] == 1.5
        await socket.send({"end": True})
        assert kinds(await socket.rest())[-1] == "summary"


async def test_sixteen_bit_sound_of_another_rate_is_resampled(client: Any) -> None:
    async with connected(app_of(client)) as socket:
        await socket.send({"sample_rate": 44_100, "encoding": "s16le", "model": "other", "top_k": 1})
        await socket.send((sine(11, rate=44_100) * 32767).astype("<i2"))
        await socket.send('{"end": true}')
        messages = await socket.rest()
    assert messages[0]["hop_seconds"] == stream.HOP_SECONDS
    assert messages[-1]["duration_seconds"] == 11.0
    assert [(m["start_seconds"], m["end_seconds"]) for m in messages if m["type"] == "window"] == [(0, 10), (1, 11)]
    assert len(messages[-1]["labels"]) == 1


async def test_a_sound_shorter_than_a_window_is_one_window(client: Any) -> None:
    async with connected(app_of(client)) as socket:
        await socket.send(START)
        await socket.send(sine(0.3))
        await socket.send(b"")
        await socket.send({"end": True})
        messages = await socket.rest()
    assert [m["end_seconds"] for m in messages if m["type"] == "window"] == [0.3]


BAD_STARTS: dict[str, tuple[str | bytes, int, str]] = {
    "no text": (b"\0\0", 1003, "must be text"),
    "no JSON": ("hello", 1007, "must be JSON"),
    "no object": ("[1]", 1007, "JSON object"),
    "nothing in it": ("{}", 1007, "sample_rate"),
    "unknown name": (json.dumps({**START, "topk": 3}), 1007, "there is no parameter 'topk'"),
    "words for numbers": (json.dumps({**START, "sample_rate": "16000"}), 1007, "sample_rate"),
    "true for a number": (json.dumps({**START, "sample_rate": True}), 1007, "sample_rate"),
    "no rate": (json.dumps({**START, "sample_rate": 0}), 1007, "1000"),
    "absurd rate": (json.dumps({**START, "sample_rate": 4_000_000_000}), 1007, "768000"),
    "unknown encoding": (json.dumps({**START, "encoding": "mp3"}), 1007, "encoding"),
    "unknown model": (json.dumps({**START, "model": "nobody"}), 1008, "fake, other"),
    "window too long": (json.dumps({**START, "window_seconds": 60}), 1007, "window_seconds"),
    "hop too short": (json.dumps({**START, "hop_seconds": 0.01}), 1007, "hop_seconds"),
    "hop beyond window": (json.dumps({**START, "window_seconds": 1, "hop_seconds": 2}), 1007, "hop_seconds"),
    "no number": ('{"sample_rate": 16000, "encoding": "f32le", "threshold": NaN}', 1007, "JSON"),
}


@pytest.mark.parametrize("name", BAD_STARTS)
async def test_a_wrong_first_message(client: Any, name: str) -> None:
    first, code, sentence = BAD_STARTS[name]
    async with connected(app_of(client), {"X-Request-ID": "abc"}) as socket:
        await socket.send(first)
        (message,) = await socket.rest()
    assert set(message) == {"type", "error", "error_type", "request_id"}
    assert (message["type"], message["request_id"], socket.closed) == ("error", "abc", code)
    assert sentence in message["error"]
    assert message["error"].startswith(socket.reason)


BAD_FRAMES: dict[str, tuple[Any, int, str]] = {
    "odd bytes": (b"\0" * 7, 1007, "no whole samples"),
    "not a number": (np.array([0.1, np.nan], np.float32), 1007, "not finite"),
    "infinite": (np.array([np.inf], np.float32), 1007, "not finite"),
    "text": ("more", 1003, '{"end": true}'),
    "another end": ({"end": False}, 1003, '{"end": true}'),
    "too large": (b"\0" * (live_sound.MAX_FRAME_BYTES + 4), 1009, "send smaller ones"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_wrong_frame_is_told_behind_the_answers_to_the_good_ones(client: Any, name: str) -> None:
    frame, code, sentence = BAD_FRAMES[name]
    async with connected(app_of(client)) as socket:
        await socket.send({**START, "window_seconds": 1.0})
        await socket.send(sine(2.0))
        await socket.send(frame)
        messages = await socket.rest()
    assert socket.closed == code
    assert [kind for kind in kinds(messages) if kind not in ("event", "event_started")] == [
        *("ready", "window", "window", "error"),
    ]
    assert sentence in messages[-1]["error"]


async def test_a_stream_without_any_sound(client: Any) -> None:
    async with connected(app_of(client)) as socket:
        await socket.send(START)
        await socket.send({"end": True})
        messages = await socket.rest()
    assert kinds(messages) == ["ready", "error"]
    assert (messages[-1]["error_type"], socket.closed) == ("invalid_input", 1007)


async def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "START_SECONDS", 0.05)
    async with running(stream_idle_seconds=0.05) as (client, _):
        async with connected(app_of(client)) as socket:
            (message,) = await socket.rest()
        assert (message["error"], socket.closed) == ("no first message came within 0.05 seconds", 1008)
        async with connected(app_of(client)) as socket:
            await socket.send(START)
            messages = await socket.rest()
        assert (kinds(messages), socket.closed) == (["ready", "error"], 1008)
        assert "nothing came for 0.05 seconds" in messages[-1]["error"]


async def test_a_key_comes_as_a_header_or_in_the_first_message() -> None:
    async with running(api_keys=["secret"]) as (client, _):

        async def outcome(headers: dict[str, str], **first: Any) -> tuple[str, int | None]:
            async with connected(app_of(client), headers) as socket:
                await socket.send({**START, **first})
                message = await socket.read()
                if message is not None and message["type"] == "ready":
                    return "ready", None
                await socket.rest()
            assert message is not None
            return message["error_type"], socket.closed

        assert await outcome({}) == ("unauthorized", 1008)
        assert await outcome({}, api_key="wrong") == ("unauthorized", 1008)
        assert await outcome({"X-API-Key": "wrong"}, api_key="secret") == ("unauthorized", 1008)
        assert await outcome({"Authorization": "Bearer secret"}) == ("ready", None)
        assert await outcome({}, api_key="secret") == ("ready", None)


async def test_a_failing_device_is_told_without_details(client: Any, service: Any) -> None:
    fake_runtime(service).failures = 100
    async with connected(app_of(client)) as socket:
        await socket.send({**START, "window_seconds": 1.0})
        await socket.send(sine(1.0))
        messages = await socket.rest()
    assert (kinds(messages), socket.closed) == (["ready", "error"], 1011)
    assert messages[-1]["error_type"] == "inference_failed"
    assert "fake runtime" not in messages[-1]["error"]


async def test_a_full_server_says_when_to_come_back() -> None:
    async with running(max_requests=1) as (client, _), connected(app_of(client)) as first:
        await first.send(START)
        await first.until("ready")
        async with connected(app_of(client)) as second:
            await second.send(START)
            (message,) = await second.rest()
        assert (message["error_type"], second.closed) == ("overloaded", 1013)
        assert message["retry_after_seconds"] >= 1


async def test_a_fast_sender_is_slowed_down_and_loses_nothing(client: Any, service: Any) -> None:
    """Few windows wait at a time, and what is not read yet stays in the connection."""
    runtime, lane = fake_runtime(service), service.models["fake"].lane
    runtime.batch_delay_seconds = 0.005
    waiting = []
    async with connected(app_of(client)) as socket:
        await socket.send({**START, "window_seconds": 1.0, "hop_seconds": 0.1})
        for _ in range(40):
            await socket.send(sine(0.5))
        await socket.send({"end": True})
        windows = 0
        while (message := await socket.read()) is not None and message["type"] != "summary":
            windows += message["type"] == "window"
            waiting.append(service.engine.queued_windows(lane))
    assert windows == 191
    assert max(waiting) <= service.settings.max_request_windows_in_flight


async def test_a_stream_that_outruns_the_device_for_too_long_is_ended(
    client: Any, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_stream, "OVERRUN_SECONDS", 0.02)
    fake_runtime(service).batch_delay_seconds = 0.1
    async with connected(app_of(client)) as socket:
        await socket.send({**START, "window_seconds": 1.0, "hop_seconds": 0.1})
        await socket.send(sine(10))
        messages = await socket.rest()
    assert (messages[-1]["error_type"], socket.closed) == ("overloaded", 1013)
    assert "faster than it is tagged" in messages[-1]["error"]


async def test_a_client_that_reads_nothing_is_let_go() -> None:
    async with running(stream_idle_seconds=0.1) as (client, service):
        async with connected(app_of(client)) as socket:
            await socket.send({**START, "window_seconds": 1.0})
            await socket.until("ready")
            socket.stuck.clear()
            await socket.send(sine(5))
            async with asyncio.timeout(5):
                while service.metrics.registry.get_sample_value("hark_cancelled_total") != 1:
                    await asyncio.sleep(0.01)
            socket.stuck.set()
        assert not service.engine._queue.jobs


async def test_a_client_that_leaves_frees_everything(client: Any, service: Any) -> None:
    fake_runtime(service).batch_delay_seconds = 0.05
    async with connected(app_of(client)) as socket:
        await socket.send({**START, "window_seconds": 1.0})
        await socket.send(sine(15))
        await socket.until("window")
    assert not service.engine._queue.jobs
    count = service.metrics.registry.get_sample_value
    assert count("hark_cancelled_total") == 1
    assert count("hark_requests_total", {"route": "/stream", "code": "499"}) == 1
    assert count("hark_inflight_requests") == 0


async def test_a_drain_refuses_new_streams_and_concludes_open_ones() -> None:
    app = create_app(Settings(runtime="fake", models=["fake"], drain_seconds=0.4))
    async with started(app), connected(app) as open_one:
        await open_one.send({**START, "window_seconds": 1.0})
        await open_one.send(sine(2.5))
        await open_one.until("window")
        app.state.service.begin_drain()
        async with connected(app) as new:
            await new.send(START)
            (message,) = await new.rest()
        assert (message["error_type"], new.closed) == ("not_ready", 1012)
        messages = await open_one.rest()
        assert messages[-1]["type"] == "summary"
        assert messages[-1]["duration_seconds"] == 2.5
        assert open_one.closed == 1012


async def test_what_is_held_does_not_grow_with_the_stream(client: Any) -> None:
    """Only running totals are kept, so a stream may last for days."""
    async with connected(app_of(client)) as socket:
        await socket.send({**START, "window_seconds": 1.0, "top_k": 1, "threshold": 1.0})
        for _ in range(300):
            await socket.send(sine(1.0))
        await socket.send({"end": True})
        summary = await socket.until("summary")
    assert summary["window_count"] == 300
    assert set(summary) == {
        *("type", "model", "duration_seconds", "sample_rate", "labels", "window_count", "event_count"),
        *("provenance", "request_id"),
    }


# --- the real client, over a socket ---


@pytest.fixture(scope="module")
def url() -> Any:
    with live_server(API_KEYS="secret", STREAM_IDLE_SECONDS="5") as server:
        yield server.url.replace("http", "ws") + "/stream"


KEY = {"Authorization": "Bearer secret"}
live = pytest.mark.timeout(180)  # a process starts first


@live
async def test_websockets_streams_a_sound_as_fast_as_it_can(url: str) -> None:
    pcm = (sine(60, rate=48_000) * 32767).astype("<i2").tobytes()

    async def send(socket: websockets.ClientConnection) -> None:
        for at in range(0, len(pcm), 50_000):
            await socket.send(pcm[at : at + 50_000])
        await socket.send('{"end": true}')

    async with connect(url, additional_headers=KEY) as socket:
        await socket.send('{"sample_rate": 48000, "encoding": "s16le", "hop_seconds": 2, "top_k": 1}')
        assert json.loads(await socket.recv())["type"] == "ready"
        sending = asyncio.create_task(send(socket))
        messages = [json.loads(message) async for message in socket]
        await sending
    assert socket.close_code == 1000
    assert sum(message["type"] == "window" for message in messages) == 26
    assert messages[-1]["duration_seconds"] == 60.0


@live
async def test_websockets_sees_errors_and_codes(url: str) -> None:
    async with connect(url) as socket:
        await socket.send('{"sample_rate": 48000, "encoding": "s16le"}')
        assert json.loads(await socket.recv())["error_type"] == "unauthorized"
        with pytest.raises(ConnectionClosedError) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008


@live
async def test_websockets_too_large_a_message_closes_with_1009(url: str) -> None:
    async with connect(url, additional_headers=KEY) as socket:
        await socket.send('{"sample_rate": 16000, "encoding": "f32le"}')
        await socket.recv()

        async def exchange() -> None:
            await socket.send(bytes(4 * live_sound.MAX_FRAME_BYTES))
            await socket.recv()

        with pytest.raises(ConnectionClosed) as closed:
            await exchange()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009
