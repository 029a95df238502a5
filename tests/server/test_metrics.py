"""The metrics of the contract, read as Prometheus reads them: each is there, with its labels, and is fed."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from server.metrics import Metrics
from server.service import Service
from tests.server.harness import encode, fake_runtime, running, sine

CLIP = encode(sine(1))
# DESIGN: name without _total, type, labels.
CONTRACT: dict[str, tuple[str, set[str]]] = {
    "hark_requests": ("counter", {"route", "code"}),
    "hark_request_duration_seconds": ("histogram", {"route"}),
    "hark_stage_duration_seconds": ("histogram", {"model", "stage"}),
    "hark_batch_windows": ("histogram", {"model"}),
    "hark_queue_windows": ("gauge", {"model"}),
    "hark_queue_audio_seconds": ("gauge", {"model"}),
    "hark_audio_seconds": ("counter", {"model"}),
    "hark_windows": ("counter", {"model"}),
    "hark_rejected": ("counter", {"reason"}),
    "hark_cancelled": ("counter", set()),
    "hark_inflight_requests": ("gauge", set()),
    "hark_device_memory_bytes": ("gauge", set()),
    "hark_model_info": ("gauge", {"model", "backbone", "runtime", "precision", "device", "scan"}),
    "hark_golden_max_abs_diff": ("gauge", {"model"}),
}
STAGES = {"decode", "queue", "features", "inference", "postprocess"}
REASONS = {"full", "deadline", "size", "quota", "draining"}


class Scrape:
    """One answer of /metrics."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, sample: str, **labels: str) -> float:
        """The one sample of this name and these labels."""
        found = [
            each.value
            for family in self.families.values()
            for each in family.samples
            if each.name == sample and labels.items() <= each.labels.items()
        ]
        assert len(found) == 1, (sample, labels, found)
        return found[0]

    def labels(self, sample: str) -> list[Mapping[str, str]]:
        return [each.labels for family in self.families.values() for each in family.samples if each.name == sample]


async def scrape(client: httpx.AsyncClient) -> Scrape:
    return Scrape((await client.get("/metrics")).text)


async def every_fate(client: httpx.AsyncClient, service: Service) -> None:
    """A request of each kind: answered, too large, too many, too late, over the quota, left, and after the drain."""
    assert (await client.post("/classify", content=CLIP)).status_code == 200
    assert (await client.post("/classify", content=encode(sine(30)))).status_code == 413
    fake_runtime(service).batch_delay_seconds = 0.1
    for _ in range(4):
        await client.post("/classify", content=CLIP)
    ahead = asyncio.create_task(client.post("/classify", content=encode(sine(20))))
    while not service.engine.queued_windows(service.models["fake"].lane):
        await asyncio.sleep(0.005)
    assert (await client.post("/classify?timeout_seconds=0.11", content=CLIP)).status_code == 503
    await ahead
    crowd = await asyncio.gather(*(client.post("/classify", content=CLIP) for _ in range(8)))
    assert {answer.status_code for answer in crowd} == {200, 503}
    for _ in range(100):
        last = await client.post("/classify", content=b"")
    assert last.status_code == 429
    await leave_during_upload(client)
    service.begin_drain()
    assert (await client.post("/classify", content=CLIP)).status_code in (429, 503)


async def leave_during_upload(client: httpx.AsyncClient) -> None:
    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": CLIP[:100], "more_body": True}]
    scope = {"type": "http", "method": "POST", "path": "/models/fake", "query_string": b"", "asgi": {"version": "3.0"}}

    async def receive() -> dict[str, Any]:
        return messages.pop()

    async def send(_: Any) -> None: ...

    await client._transport.app({**scope, "headers": [], "client": ("elsewhere", 1)}, receive, send)  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_every_metric_of_the_contract_is_there_and_fed() -> None:
    limits = {"max_queue_audio_seconds": 40, "max_batch_audio_seconds": 10, "max_audio_seconds": 20}
    async with running(**limits, quota_requests_per_minute=60) as (client, service):
        await every_fate(client, service)
        seen = await scrape(client)
    for name, (kind, labels) in CONTRACT.items():
        family = seen.families[name]
        assert family.type == kind, name
        assert family.documentation.endswith("."), name
        assert family.samples, name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels, sample
    assert {labels["reason"] for labels in seen.labels("hark_rejected_total")} <= REASONS
    for reason in ("full", "deadline", "size", "quota"):
        assert seen.value("hark_rejected_total", reason=reason) >= 1, reason
    for stage in STAGES:
        assert seen.value("hark_stage_duration_seconds_count", model="fake", stage=stage) >= 5, stage
    assert {labels["stage"] for labels in seen.labels("hark_stage_duration_seconds_count")} == STAGES
    assert seen.value("hark_requests_total", route="/classify", code="413") == 1
    assert seen.value("hark_cancelled_total") == 1
    windows = seen.value("hark_windows_total", model="fake")
    assert seen.value("hark_audio_seconds_total", model="fake") == windows + 18, "all of one second but two of ten"
    assert seen.value("hark_batch_windows_sum", model="fake") == seen.value("hark_windows_total", model="fake")
    assert seen.value("hark_inflight_requests") == 1, "this very scrape"
    assert seen.value("hark_queue_windows", model="fake") == 0
    assert seen.value("hark_device_memory_bytes") > 1e6
    assert seen.value("hark_model_info", model="fake") == 1
    assert seen.value("hark_golden_max_abs_diff", model="fake") == 0


@pytest.mark.anyio
async def test_the_queues_metrics_follow_what_waits() -> None:
    async with running(max_batch_audio_seconds=10) as (client, service):
        fake_runtime(service).batch_delay_seconds = 0.2
        tagging = [asyncio.create_task(client.post("/classify", content=CLIP)) for _ in range(4)]
        while (seen := await scrape(client)).value("hark_queue_windows", model="fake") < 2:
            await asyncio.sleep(0.01)
        windows = seen.value("hark_queue_windows", model="fake")
        assert seen.value("hark_queue_audio_seconds", model="fake") > 0
        assert windows <= 4
        assert seen.value("hark_inflight_requests") == 5
        await asyncio.gather(*tagging)
        assert (await scrape(client)).value("hark_queue_audio_seconds", model="fake") == 0


@pytest.mark.anyio
async def test_what_callers_send_never_becomes_a_label(client: httpx.AsyncClient) -> None:
    """A label per path or model name that somebody makes up would fill the memory of Prometheus."""
    for place in range(20):
        await client.get(f"/made/up/{place}")
        await client.post(f"/models/made-up-{place}", content=CLIP)
        await client.get(f"/classes/made-up-{place}")
        await client.post("/classify", params={"model": f"made-up-{place}"}, content=CLIP)
    assert "made" not in (await client.get("/metrics")).text


def test_names_and_units_follow_prometheus() -> None:
    for family in text_string_to_metric_families(Metrics().render().decode()):
        assert family.name.startswith("hark_")
        assert not re.search("_(ms|milliseconds|minutes|kib|mib)$", family.name)
