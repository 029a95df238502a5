"""Quotas: token buckets per caller, and a service that counts every route's requests and sound against them."""

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.requests import HTTPConnection

from server import quota
from server.auth import require_api_key
from server.quota import Quota, RateLimitedError
from server.service import Service
from server.settings import Settings
from tests.server.harness import check_error, encode, fake_runtime, running, sine

CLIP = encode(sine(12))


class Clock:
    """A time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_requests_come_back_steadily() -> None:
    clock = Clock()
    buckets = Quota(6, None, clock)
    for _ in range(6):
        buckets.enter("a")
    with pytest.raises(RateLimitedError, match="6 requests a minute") as caught:
        buckets.enter("a")
    assert caught.value.retry_after_seconds == pytest.approx(10)
    buckets.enter("b")
    clock.now += 9.9
    with pytest.raises(RateLimitedError):
        buckets.enter("a")
    clock.now += 0.2
    buckets.enter("a")


def test_a_rest_fills_the_bucket_and_no_more() -> None:
    clock = Clock()
    buckets = Quota(3, None, clock)
    buckets.enter("a")
    clock.now += 3600
    for _ in range(3):
        buckets.enter("a")
    with pytest.raises(RateLimitedError):
        buckets.enter("a")


def test_less_than_one_request_a_minute() -> None:
    clock = Clock()
    buckets = Quota(0.5, None, clock)
    buckets.enter("a")
    with pytest.raises(RateLimitedError) as caught:
        buckets.enter("a")
    clock.now += caught.value.retry_after_seconds + 0.001
    buckets.enter("a")


def test_sound_may_overdraw_and_is_paid_off() -> None:
    clock = Clock()
    buckets = Quota(None, 60, clock)
    buckets.enter("a")
    buckets.charge("a", 600)
    with pytest.raises(RateLimitedError, match="60 seconds of audio a minute") as caught:
        buckets.enter("a")
    assert caught.value.retry_after_seconds == pytest.approx(541)
    buckets.enter("b")
    clock.now += caught.value.retry_after_seconds + 0.001
    buckets.enter("a")


def test_a_refused_request_costs_nothing() -> None:
    clock = Clock()
    buckets = Quota(2, 60, clock)
    buckets.charge("a", 61)
    for _ in range(5):
        with pytest.raises(RateLimitedError, match="audio"):
            buckets.enter("a")
    clock.now += 2.001
    buckets.enter("a")
    buckets.enter("a")


def test_without_limits_nothing_is_kept() -> None:
    buckets = Quota(None, None)
    for caller in range(100):
        buckets.enter(str(caller))
        buckets.charge(str(caller), 1e9)
    assert not buckets._buckets


def test_callers_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "CALLERS_KEPT", 3)
    buckets = Quota(1, None, Clock())
    for caller in "abcab":
        try:
            buckets.enter(caller)
        except RateLimitedError:
            assert caller in "ab"
    buckets.enter("d")
    assert set(buckets._buckets) == {"a", "b", "d"}, "c was not seen for longest"


@pytest.mark.anyio
async def test_each_key_has_its_own_quota_and_looking_is_free(capsys: Any) -> None:
    async with running(quota_requests_per_minute=2, api_keys=["sesame", "mellon"]) as (client, service):
        first, second = {"X-API-Key": "sesame"}, {"Authorization": "Bearer mellon"}
        for path in ("/classify", "/"):
            assert (await client.post(path, content=CLIP, headers=first)).status_code == 200
        for path in ("/classify", "/", "/models/fake", "/embed", "/v2/models/fake/infer"):
            refused = await client.post(path, content=CLIP, headers=first)
            sentence = check_error(refused, 429, "rate_limited")
            assert "2 requests a minute" in sentence
            assert 20 <= int(refused.headers["Retry-After"]) <= 30
        assert (await client.get("/models", headers=first)).status_code == 200
        assert (await client.post("/classify", content=CLIP, headers=second)).status_code == 200
        assert service.metrics.registry.get_sample_value("hark_rejected_total", {"reason": "quota"}) == 5
    captured = capsys.readouterr()
    assert "refused" in captured.out
    assert "sesame" not in captured.out + captured.err


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1%eth0", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "socket", False),
    ],
)
@pytest.mark.anyio
async def test_callers_without_a_key_go_by_their_network(one: str, other: str, same: bool) -> None:
    """Every household has 2**64 IPv6 addresses: a caller who took a new one for each request had no quota at all."""
    service = Service(Settings(runtime="fake", quota_requests_per_minute=1))

    async def call(host: str) -> None:
        app = SimpleNamespace(state=SimpleNamespace(service=service))
        scope = {"type": "http", "method": "POST", "headers": [], "client": (host, 1), "app": app}
        await require_api_key(HTTPConnection(scope))

    await call(one)
    if same:
        with pytest.raises(RateLimitedError):
            await call(other)
    else:
        await call(other)


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/classify", "/", "/embed"])
async def test_tagged_sound_is_charged_to_the_caller(path: str) -> None:
    async with running(quota_audio_seconds_per_minute=15) as (client, service):
        assert (await client.post(path, content=CLIP)).status_code == 200  # two windows of ten seconds
        refused = await client.post("/classify", content=CLIP)
        assert "15 seconds of audio a minute" in check_error(refused, 429, "rate_limited")
        assert 10 < int(refused.headers["Retry-After"]) <= 21  # 5 s too much, at 15 s a minute
        assert len(fake_runtime(service).calls) >= 1


@pytest.mark.anyio
async def test_without_quotas_nobody_is_limited(client: httpx.AsyncClient, service: Service) -> None:
    for _ in range(20):
        assert (await client.post("/classify", content=encode(sine(0.1)))).status_code == 200
