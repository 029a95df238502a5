"""A request under pressure: full queues, deadlines, failing batches, callers who leave, and the end of the server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog

from server.app import create_app
from server.service import Service
from server.settings import Settings
from tests.server.harness import check_error, encode, fake_runtime, running, sine, started

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

CLIP = encode(sine(1))
LONG = encode(sine(300))


async def until(condition: Any, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("status", [503, 429])
async def test_a_full_queue_refuses_with_the_time_to_come_back(status: int) -> None:
    async with running(max_queue_audio_seconds=20, max_batch_audio_seconds=10, overload_status=status) as (
        client,
        service,
    ):
        fake_runtime(service).batch_delay_seconds = 0.2
        requests = [asyncio.create_task(client.post("/classify", content=CLIP)) for _ in range(8)]
        responses = await asyncio.gather(*requests)
        refused = [response for response in responses if response.status_code != 200]
        assert 0 < len(refused) < 8
        for response in refused:
            check_error(response, status, "overloaded")
            assert "Retry-After" in response.headers
        assert (await client.post("/classify", content=CLIP)).status_code == 200
        rejected = service.metrics.registry.get_sample_value("hark_rejected_total", {"reason": "full"})
        assert rejected == len(refused)


async def test_a_long_upload_is_never_refused_midway_and_short_ones_overtake_it() -> None:
    async with running(max_queue_audio_seconds=30, max_batch_audio_seconds=10) as (client, service):
        fake_runtime(service).batch_delay_seconds = 0.03
        long = asyncio.create_task(client.post("/classify", content=LONG))
        await until(lambda: service.metrics.registry.get_sample_value("hark_windows_total", {"model": "fake"}))
        short = await client.post("/classify", content=CLIP)
        while short.status_code == 503:
            short = await client.post("/classify", content=CLIP)
        assert not long.done()
        assert len((await long).json()["windows"]) == 30


async def test_the_deadline_of_a_request(client: httpx.AsyncClient, service: Service) -> None:
    fake_runtime(service).batch_delay_seconds = 0.3
    check_error(await client.post("/classify?timeout_seconds=0.05", content=CLIP), 504, "timeout")
    for _ in range(3):
        assert (await client.post("/classify?timeout_seconds=5", content=CLIP)).status_code == 200
    long = asyncio.create_task(client.post("/classify", content=LONG))
    await until(lambda: service.engine.queued_windows(service.models["fake"].lane))
    refused = await client.post("/classify?timeout_seconds=0.5", content=CLIP)
    check_error(refused, 503, "overloaded")  # by now the server knows how long a batch takes, and that one is before
    assert service.metrics.registry.get_sample_value("hark_rejected_total", {"reason": "deadline"}) == 1
    fake_runtime(service).batch_delay_seconds = 0
    assert (await long).status_code == 200


async def test_a_deadline_that_has_passed_is_a_timeout_on_an_idle_server(client: httpx.AsyncClient) -> None:
    """A full server, which it had said to be, is one that asking again later would help with."""
    for _ in range(2):
        check_error(await client.post("/classify?timeout_seconds=0.0001", content=CLIP), 504, "timeout")
        assert (await client.post("/classify", content=CLIP)).status_code == 200


async def test_the_servers_own_deadline() -> None:
    async with running(timeout_seconds=0.05) as (client, service):
        fake_runtime(service).batch_delay_seconds = 0.3
        check_error(await client.post("/classify", content=CLIP), 504, "timeout")


async def test_a_failing_batch_answers_500_without_details_and_the_next_request_succeeds(
    client: httpx.AsyncClient, service: Service
) -> None:
    fake_runtime(service).failures = 1000
    sentence = check_error(await client.post("/classify", content=LONG), 500, "inference_failed")
    assert "fake runtime" not in sentence
    fake_runtime(service).failures = 0
    assert (await client.post("/classify", content=CLIP)).status_code == 200


async def test_a_bug_answers_500_without_details(client: httpx.AsyncClient, service: Service, capsys: Any) -> None:
    service.models["fake"].lane.__dict__["window_samples"] = 10  # the engine will refuse the windows: a ValueError
    sentence = check_error(await client.post("/classify", content=CLIP), 500, "internal_error")
    assert "samples" not in sentence
    assert "ValueError: a window holds" in capsys.readouterr().out
    assert (await client.post("/classify?model=other", content=CLIP)).status_code == 200


async def test_a_caller_who_leaves_cancels_the_work() -> None:
    app = create_app(Settings(runtime="fake", models=["fake"], decode_threads=1))
    service: Service = app.state.service
    async with started(app) as client:
        fake_runtime(service).batch_delay_seconds = 0.02
        left = asyncio.Event()
        body: list[dict[str, Any]] = [{"type": "http.request", "body": LONG}]

        async def receive() -> dict[str, Any]:
            if body:
                return body.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None: ...

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/classify",
            "headers": [],
            "query_string": b"hop_seconds=0.5",
        }
        leaving = asyncio.create_task(app({**scope, "asgi": {"version": "3.0"}}, receive, send))  # type: ignore[arg-type]
        await until(lambda: len(fake_runtime(service).calls) > 4)
        left.set()
        await leaving
        lane = service.models["fake"].lane
        assert service.engine.queued_windows(lane) == 0
        count = service.metrics.registry.get_sample_value
        assert count("hark_cancelled_total") == 1
        assert count("hark_requests_total", {"route": "/classify", "code": "499"}) == 1
        assert (await client.post("/classify", content=CLIP)).status_code == 200
        await until(lambda: len(service.engine._queue.jobs) == 0)


async def test_a_caller_who_leaves_during_the_upload_is_forgotten(client: httpx.AsyncClient, service: Service) -> None:
    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": CLIP[:100], "more_body": True}]

    async def receive() -> dict[str, Any]:
        return messages.pop()

    async def send(message: dict[str, Any]) -> None: ...

    app = client._transport.app  # type: ignore[attr-defined]
    scope = {"type": "http", "method": "POST", "path": "/classify", "headers": [], "query_string": b""}
    await app({**scope, "asgi": {"version": "3.0"}}, receive, send)
    assert service.metrics.registry.get_sample_value("hark_cancelled_total") == 1


async def test_stopping_finishes_what_was_accepted() -> None:
    app = create_app(Settings(runtime="fake", models=["fake"], drain_seconds=10))
    service: Service = app.state.service
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://hark") as client:
        async with app.router.lifespan_context(app):
            await service.wait_until_loaded()
            fake_runtime(service).batch_delay_seconds = 0.02
            accepted = [asyncio.create_task(client.post("/classify", content=LONG)) for _ in range(3)]
            await until(lambda: len(service.engine._queue.jobs) == 3)
            service.begin_drain()
            check_error(await client.post("/classify", content=CLIP), 503, "not_ready")
        assert [(await task).status_code for task in accepted] == [200, 200, 200]


async def test_stopping_cancels_what_takes_too_long() -> None:
    app = create_app(Settings(runtime="fake", models=["fake"], drain_seconds=0))
    service: Service = app.state.service
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://hark") as client:
        async with app.router.lifespan_context(app):
            await service.wait_until_loaded()
            fake_runtime(service).batch_delay_seconds = 0.3
            accepted = asyncio.create_task(client.post("/classify", content=LONG))
            await until(lambda: len(fake_runtime(service).calls) > 2)
        check_error(await accepted, 503, "not_ready")


async def test_a_request_cut_off_by_the_drain_is_answered_and_not_called_finished() -> None:
    """The web server cancels what is left; that was answered as a bug, and the log said that all had finished."""
    app = create_app(Settings(runtime="fake", models=["fake"], drain_seconds=0))
    service: Service = app.state.service
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def send(message: Any) -> None:
        sent.append(message)

    with structlog.testing.capture_logs() as lines:
        async with app.router.lifespan_context(app):
            await service.wait_until_loaded()
            scope = {"type": "http", "method": "POST", "path": "/classify", "headers": [], "query_string": b""}
            uploading = asyncio.create_task(app({**scope, "asgi": {"version": "3.0"}}, receive, send))  # type: ignore[arg-type]
            await asyncio.sleep(0.05)
            uploading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await uploading
    assert sent[0]["status"] == 503
    assert b"stopped before the request was answered" in sent[1]["body"]
    assert [line["all_finished"] for line in lines if line["event"] == "stopped"] == [False]


async def test_uploads_that_are_still_coming_count_among_the_requests() -> None:
    """Any number of them could begin, and then all but `max_requests` were refused after their upload."""
    async with running(max_requests=1) as (client, _):
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield CLIP[:100]
            begun.set()
            await go_on.wait()
            yield CLIP[100:]

        uploading = asyncio.create_task(client.post("/classify", content=body()))
        await begun.wait()
        check_error(await client.post("/classify", content=CLIP), 503, "overloaded")
        go_on.set()
        assert (await uploading).status_code == 200
        check_error(await client.post("/classify", content=b"no sound"), 415, "audio_not_decodable")
        check_error(await client.post("/classify?top_k=0", content=CLIP), 422, "invalid_input")
        check_error(await client.post("/classify", content=b""), 422, "invalid_input")
        assert (await client.post("/classify", content=CLIP)).status_code == 200, "each of them gave its place back"
