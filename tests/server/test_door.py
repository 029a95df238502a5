"""The door answers what the engine refuses, as a route would, and lets everything else through once."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest
import structlog

from server.service import Service
from tests.server.harness import check_error, encode, listening, running, sine

pytestmark = pytest.mark.anyio

CLIP = encode(sine(1.0))
FULL = {"max_requests": 1, "fake_window_seconds": 0.5}
"""A server with one place, whose answers take long enough to find it taken."""

Opened = Callable[..., AbstractAsyncContextManager[tuple[httpx.AsyncClient, Service]]]


@pytest.fixture(params=[running, listening], ids=["routes", "door"])
def opened(request: pytest.FixtureRequest) -> Opened:
    """An app whose routes alone refuse, and one behind the HTTP protocol, which asks the door first."""
    opened: Opened = request.param
    return opened


@pytest.mark.parametrize("path", ["/classify", "/classify?timeout_seconds=30", "/embed?model=other"])
async def test_a_full_server_refuses_with_the_error_body_and_counts_it(opened: Opened, path: str) -> None:
    async with opened(**FULL) as (client, _):
        first = asyncio.create_task(client.post("/classify", content=CLIP))
        await asyncio.sleep(0.1)
        refused = await client.post(path, content=CLIP)
        assert "1 requests are already being answered" in check_error(refused, 503, "overloaded")
        assert (await first).status_code == 200
        metrics = (await client.get("/metrics")).text
    route = path.partition("?")[0]
    assert f'hark_requests_total{{code="503",route="{route}"}} 1.0' in metrics
    assert 'hark_rejected_total{reason="full"} 1.0' in metrics


async def test_a_refusal_has_the_callers_id_and_trace(opened: Opened) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with opened(**FULL) as (client, service):
        first = asyncio.create_task(client.post("/classify", content=CLIP))
        await asyncio.sleep(0.1)
        for headers in ({}, {"traceparent": trace}):
            refused = await client.post("/classify", content=CLIP, headers={"X-Request-ID": "mine", **headers})
            assert check_error(refused, 503, "overloaded")
            assert refused.json()["request_id"] == refused.headers["X-Request-ID"] == "mine"
            assert int(refused.headers["Retry-After"]) == refused.json()["retry_after_seconds"] >= 1
            assert refused.headers.get("traceparent", "")[:35] == headers.get("traceparent", "")[:35]
        assert (await first).status_code == 200
        assert not service.engine._receiving, "a refusal holds no place"


async def test_a_refusal_has_one_line_in_the_log() -> None:
    with structlog.testing.capture_logs() as lines:
        async with listening(**FULL) as (client, _):
            first = asyncio.create_task(client.post("/classify", content=CLIP))
            await asyncio.sleep(0.1)
            await client.post("/classify", content=CLIP, headers={"X-Request-ID": "mine"})
            await first
    refused = [line for line in lines if line.get("request_id") == "mine"]
    assert [(line["event"], line["status"], line["error_type"]) for line in refused] == [("refused", 503, "overloaded")]


async def test_a_request_takes_one_place_only(opened: Opened) -> None:
    async with opened(max_requests=1) as (client, _):
        for _ in range(3):
            assert (await client.post("/classify?timeout_seconds=9", content=CLIP)).status_code == 200


async def test_a_caller_without_a_key_is_told_so_even_by_a_full_server(opened: Opened) -> None:
    async with opened(**FULL, api_keys=["secret"]) as (client, _):
        key = {"X-API-Key": "secret"}
        first = asyncio.create_task(client.post("/classify", content=CLIP, headers=key))
        await asyncio.sleep(0.1)
        check_error(await client.post("/classify", content=CLIP), 401, "unauthorized")
        check_error(await client.post("/classify", content=CLIP, headers=key), 503, "overloaded")
        assert (await first).status_code == 200


async def test_a_refused_request_counts_against_the_quota(opened: Opened) -> None:
    async with opened(**FULL, quota_requests_per_minute=2) as (client, _):
        first = asyncio.create_task(client.post("/classify", content=CLIP))
        await asyncio.sleep(0.1)
        check_error(await client.post("/classify", content=CLIP), 503, "overloaded")
        check_error(await client.post("/classify", content=CLIP), 429, "rate_limited")
        assert (await first).status_code == 200


@pytest.mark.parametrize(
    ("query", "status", "error_type"),
    [
        ("timeout_seconds=soon", 422, "invalid_input"),
        ("timeout_seconds=nan", 422, "invalid_input"),
        ("timeout_seconds=-1", 422, "invalid_input"),
        ("timeout_seconds=0", 422, "invalid_input"),
        ("model=nobody", 404, "model_not_found"),
        ("top_k=many", 422, "invalid_input"),
    ],
)
async def test_what_is_wrong_with_a_request_its_route_says(
    opened: Opened, query: str, status: int, error_type: str
) -> None:
    async with opened() as (client, service):
        check_error(await client.post(f"/classify?{query}", content=CLIP), status, error_type)
        assert not service.metrics.registry.get_sample_value("hark_windows_total", {"model": "fake"})
        assert (await client.post("/classify", content=CLIP)).status_code == 200


async def test_a_full_server_refuses_before_the_framework_looks() -> None:
    async with listening(**FULL) as (client, _):
        first = asyncio.create_task(client.post("/classify", content=CLIP))
        await asyncio.sleep(0.1)
        check_error(await client.post("/classify?top_k=many", content=CLIP), 503, "overloaded")
        assert (await first).status_code == 200
