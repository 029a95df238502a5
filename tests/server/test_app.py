"""What surrounds tagging: health, readiness, what runs, metrics, ids, pages, and the errors of the framework itself."""

import asyncio
import re

import httpx
import pytest
import structlog

from server.app import create_app
from server.service import Service
from server.settings import Settings
from tests.server.harness import check_error, encode, running, sine, started

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/health", "/healthz", "/livez", "/ping"])
async def test_liveness_answers_before_anything_is_loaded(path: str) -> None:
    app = create_app(Settings(runtime="fake", models=["fake"]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hark") as client:
        assert (await client.get(path)).status_code == 200
        check_error(await client.get("/readyz"), 503, "not_ready")
        check_error(await client.post("/classify", content=encode(sine(0.1))), 503, "not_ready")


async def test_readiness_comes_with_the_models_and_goes_with_the_drain(
    client: httpx.AsyncClient, service: Service
) -> None:
    assert (await client.get("/readyz")).status_code == 200
    service.begin_drain()
    check_error(await client.get("/readyz"), 503, "not_ready")
    check_error(await client.post("/classify", content=encode(sine(0.1))), 503, "not_ready")
    assert (await client.get("/livez")).status_code == 200
    assert 'hark_rejected_total{reason="draining"}' in (await client.get("/metrics")).text


async def test_liveness_does_not_wait_for_the_device() -> None:
    async with running() as (client, service):
        service.models["fake"].lane.runtime.batch_delay_seconds = 0.5  # type: ignore[attr-defined]
        tagging = asyncio.create_task(client.post("/classify", content=encode(sine(0.1))))
        await asyncio.sleep(0.1)
        assert (await client.get("/healthz")).status_code == 200
        assert not tagging.done()
        assert (await tagging).status_code == 200


async def test_a_model_that_cannot_be_loaded_leaves_the_server_alive_but_not_ready() -> None:
    app = create_app(Settings(models=["no-such-model"]))
    failures: list[str] = []
    app.state.service.on_failure = lambda: failures.append(app.state.service.failure)
    async with started(app) as client:
        assert (await client.get("/livez")).status_code == 200
        check_error(await client.get("/readyz"), 503, "not_ready")
    assert "no-such-model" in failures[0]


async def test_info_is_an_object_that_says_what_runs(client: httpx.AsyncClient) -> None:
    info = (await client.get("/info")).json()
    assert info["default_model"] == "fake"
    assert info["models"]["fake"] == {"runtime": "fake", "precision": "float32", "device": "cpu", "scan": None}


async def test_models_lists_the_default_first(client: httpx.AsyncClient) -> None:
    models = (await client.get("/models")).json()["models"]
    assert [(model["name"], model["default"]) for model in models] == [("fake", True), ("other", False)]
    assert models[0]["labels"] == 527
    assert models[0]["card"]


async def test_labels_are_audiosets_with_parents(client: httpx.AsyncClient) -> None:
    answer = (await client.get("/labels", params={"model": "other"})).json()
    assert answer["model"] == "other"
    speech = {"index": 0, "mid": "/m/09x0r", "name": "Speech", "parents": ["/m/09l8g"], "threshold": 0.5}
    assert answer["labels"][0] == speech
    assert len(answer["labels"]) == 527
    check_error(await client.get("/labels", params={"model": "nobody"}), 404, "model_not_found")


async def test_metrics_have_the_contracts_names(client: httpx.AsyncClient) -> None:
    await client.post("/classify", content=encode(sine(0.5)))
    await client.get("/no/such/path")
    text = (await client.get("/metrics")).text
    for line in (
        'hark_requests_total{code="200",route="/classify"} 1.0',
        'hark_requests_total{code="404",route="unmatched"} 1.0',
        'hark_request_duration_seconds_count{route="/classify"} 1.0',
        'hark_batch_windows_count{model="fake"} 1.0',
        'hark_queue_windows{model="fake"} 0.0',
        'hark_queue_audio_seconds{model="fake"} 0.0',
        'hark_audio_seconds_total{model="fake"} 0.5',
        'hark_windows_total{model="fake"} 1.0',
        "hark_cancelled_total 0.0",
        "hark_inflight_requests 1.0",
        'hark_golden_max_abs_diff{model="fake"} 0.0',
        'hark_model_info{backbone="fake",device="cpu",model="fake",precision="float32",runtime="fake",scan=""} 1.0',
    ):
        assert line in text, line
    for stage in ("decode", "queue", "features", "inference", "postprocess"):
        assert f'hark_stage_duration_seconds_count{{model="fake",stage="{stage}"}} 1.0' in text
    memory = re.search(r"^hark_device_memory_bytes (\S+)$", text, re.MULTILINE)
    assert memory
    assert float(memory[1]) > 1e6


async def test_a_sane_request_id_is_taken_and_any_other_replaced(client: httpx.AsyncClient) -> None:
    taken = await client.get("/health", headers={"X-Request-ID": "build-7/clip:3"})
    assert taken.headers["X-Request-ID"] == "build-7/clip:3"
    for forged in ("", "two words", "x" * 129, "a\tb", "é"):
        made = await client.get("/health", headers={"X-Request-ID": forged.encode()})  # type: ignore[dict-item]
        assert re.fullmatch("[0-9a-f]{32}", made.headers["X-Request-ID"])


async def test_the_request_id_stands_in_every_log_line(client: httpx.AsyncClient, service: Service) -> None:
    service.models["fake"].lane.runtime.failures = 1  # type: ignore[attr-defined]
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await client.post("/classify", content=encode(sine(0.1)), headers={"X-Request-ID": "seek-me"})
    assert {line["event"] for line in lines} == {"batch failed", "inference_failed", "request"}
    assert all("seek-me" in (line.get("request_id"), *line.get("request_ids", [])) for line in lines)


@pytest.mark.parametrize(
    ("method", "path", "status", "error_type"),
    [
        ("GET", "/no/such/path", 404, "not_found"),
        ("POST", "/classify/", 404, "not_found"),
        ("GET", "/page/no-such-file.js", 404, "not_found"),
        ("GET", "/page/../settings.py", 404, "not_found"),
        ("GET", "/classify", 405, "method_not_allowed"),
        ("DELETE", "/health", 405, "method_not_allowed"),
        ("POST", "/page/main.js", 405, "method_not_allowed"),
    ],
)
async def test_the_frameworks_own_errors_have_the_one_body(
    client: httpx.AsyncClient, method: str, path: str, status: int, error_type: str
) -> None:
    response = await client.request(method, path)
    check_error(response, status, error_type)
    assert status != 405 or response.headers["Allow"]


async def test_pages_need_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    for path in ("/", "/docs"):
        response = await client.get(path)
        assert response.headers["Content-Type"].startswith("text/html")
        assert not re.search(r'(src|href)="https?://', response.text)
    assert "/classify" in response.text
    assert "window_seconds" in response.text


async def test_keys_guard_the_models_but_not_health() -> None:
    async with running(api_keys="first, second") as (client, _):
        clip = encode(sine(0.1))
        for path in ("/health", "/readyz", "/metrics", "/", "/docs"):
            assert (await client.get(path)).status_code == 200
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"X-API-Key": "first, second"},
            {"Authorization": "Basic first"},
        ):
            response = await client.post("/classify", content=clip, headers=headers)
            check_error(response, 401, "unauthorized")
            assert response.headers["WWW-Authenticate"] == "Bearer"
        for headers in ({"Authorization": "Bearer first"}, {"authorization": "bearer second"}, {"X-API-Key": "second"}):
            assert (await client.post("/classify", content=clip, headers=headers)).status_code == 200
        check_error(await client.get("/models"), 401, "unauthorized")


async def test_a_405_names_the_methods_of_every_route_of_the_path(client: httpx.AsyncClient) -> None:
    """`PUT /` was told "/ answers POST only", though GET gives the page."""
    response = await client.put("/")
    assert response.headers["Allow"] == "GET, POST"
    assert check_error(response, 405, "method_not_allowed") == "/ answers GET, POST only"


async def test_only_tagging_refused_by_a_drain_counts_as_rejected_by_it() -> None:
    """Every probe of /readyz during a slow start counted as a request refused by a drain."""
    app = create_app(Settings(runtime="fake", models=["fake"]))
    count = app.state.service.metrics.registry.get_sample_value
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hark") as client:
        await client.get("/readyz")
        await client.post("/classify", content=b"x")
        assert count("hark_rejected_total", {"reason": "draining"}) is None
        app.state.service.state = "draining"
        await client.get("/readyz")
        await client.post("/classify", content=b"x")
        assert count("hark_rejected_total", {"reason": "draining"}) == 1


async def test_the_pages_files_and_the_document_are_named_in_the_metrics(client: httpx.AsyncClient) -> None:
    """They counted as "unmatched", among the requests for paths that do not exist."""
    for path in ("/openapi.json", "/page/main.js", "/page/style.css", "/models"):
        assert (await client.get(path)).status_code == 200
    text = (await client.get("/metrics")).text
    for route, times in (("/openapi.json", 1), ("/page/*", 2), ("/models", 1)):
        assert f'hark_requests_total{{code="200",route="{route}"}} {times}.0' in text
    assert "unmatched" not in text
