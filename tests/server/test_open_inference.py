"""The Open Inference Protocol in-process: answers equal `/classify`'s, and every error has the one body."""

import asyncio
import base64
import gzip
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from server.service import Service
from tests.server.harness import RATE, check_error, encode, fake_runtime, running, sine

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

INFER = "/v2/models/fake/infer"
CLIP = encode(sine(12))
LENGTH = "Inference-Header-Content-Length"


def question(*clips: bytes, **parameters: Any) -> dict[str, Any]:
    data = [base64.b64encode(clip).decode() for clip in clips]
    tensor = {"name": "audio", "shape": [len(clips)], "datatype": "BYTES", "data": data}
    return {"inputs": [tensor], "parameters": parameters}


def waveform(rows: np.ndarray, rate: int = RATE) -> dict[str, Any]:
    tensor = {"name": "waveform", "shape": rows.shape, "datatype": "FP32", "data": rows.ravel().tolist()}
    return {"inputs": [tensor], "parameters": {"sampling_rate": rate}}


def scores_of(response: httpx.Response) -> np.ndarray:
    assert response.status_code == 200, response.text
    [scores] = [output for output in response.json()["outputs"] if output["name"] == "scores"]
    return np.array(scores["data"], np.float32).reshape(scores["shape"])


async def test_the_scores_are_those_of_classify(client: httpx.AsyncClient) -> None:
    response = await client.post(INFER, json=question(CLIP, encode(sine(1, 900))))
    scores = scores_of(response)
    labels = response.json()["outputs"][1]["data"]
    for row, clip in zip(scores, (CLIP, encode(sine(1, 900))), strict=True):
        answer = (await client.post("/classify?top_k=527", content=clip)).json()
        expected = {label["label"]: label["score"] for label in answer["labels"]}
        assert dict(zip(labels, row.tolist(), strict=True)) == pytest.approx(expected, abs=1e-6)
    assert "Server-Timing" in response.headers


async def test_another_sample_rate_is_resampled_as_a_file_is(client: httpx.AsyncClient) -> None:
    tone = sine(2, rate=44_100)
    as_tensor = scores_of(await client.post(INFER, json=waveform(tone[None], 44_100)))
    as_file = scores_of(await client.post(INFER, json=question(encode(tone, 44_100))))
    assert np.allclose(as_tensor, as_file, atol=1e-3)


async def test_windows_can_be_chosen(client: httpx.AsyncClient, service: Service) -> None:
    before = service.metrics.registry.get_sample_value("hark_windows_total", {"model": "fake"}) or 0
    assert (await client.post(INFER, json=question(CLIP, window_seconds=1, hop_seconds=0.5))).status_code == 200
    assert service.metrics.registry.get_sample_value("hark_windows_total", {"model": "fake"}) == before + 23
    sentence = check_error(await client.post(INFER, json=question(CLIP, hop_seconds=11)), 422, "invalid_input")
    assert "hop_seconds" in sentence


async def test_compressed_bodies(client: httpx.AsyncClient) -> None:
    body = orjson.dumps(question(CLIP))
    headers = {"Content-Encoding": "gzip", "Accept-Encoding": "deflate"}
    response = await client.post(INFER, content=gzip.compress(body), headers=headers)
    assert response.headers["Content-Encoding"] == "deflate"
    assert np.array_equal(scores_of(response), scores_of(await client.post(INFER, content=body)))
    check_error(await client.post(INFER, content=body, headers=headers), 422, "invalid_input")


async def test_a_bomb_is_refused() -> None:
    async with running(max_json_bytes=100_000) as (client, _):
        bomb = gzip.compress(bytes(10_000_000))
        check_error(
            await client.post(INFER, content=bomb, headers={"Content-Encoding": "gzip"}), 413, "audio_too_large"
        )
        check_error(await client.post(INFER, content=bytes(100_001)), 413, "audio_too_large")


@pytest.mark.parametrize(
    ("path", "status", "error_type"),
    [
        ("/v2/models/nope/infer", 404, "model_not_found"),
        ("/v2/models/fake/versions/2/infer", 404, "model_not_found"),
        ("/v2/models/fake/versions/x/infer", 404, "model_not_found"),
        ("/v2/models/fake/explain", 404, "not_found"),
    ],
)
async def test_wrong_paths(client: httpx.AsyncClient, path: str, status: int, error_type: str) -> None:
    check_error(await client.post(path, json=question(CLIP)), status, error_type)


@pytest.mark.parametrize(
    ("body", "headers", "status", "error_type"),
    [
        (b"", {}, 422, "invalid_input"),
        (b"{}", {}, 422, "invalid_input"),
        (orjson.dumps(question(CLIP)), {LENGTH: "99999999"}, 422, "invalid_input"),
        (orjson.dumps(question(CLIP)), {LENGTH: "10"}, 422, "invalid_input"),
        (orjson.dumps(question(b"this is no audio")), {}, 415, "audio_not_decodable"),
        (orjson.dumps(question(CLIP[:1000])), {}, 422, "invalid_input"),
        (orjson.dumps({"inputs": question(CLIP)["inputs"] * 20}), {}, 422, "invalid_input"),
        (orjson.dumps(question(*[b"x"] * 65)), {}, 422, "invalid_input"),
    ],
)
async def test_wrong_bodies(
    client: httpx.AsyncClient, body: bytes, headers: dict[str, str], status: int, error_type: str
) -> None:
    check_error(await client.post(INFER, content=body, headers=headers), status, error_type)
    statistics = (await client.get("/v2/models/fake/stats")).json()["model_stats"][0]["inference_stats"]
    assert statistics["fail"]["count"] == 1
    assert statistics["success"]["count"] == 0


async def test_a_broken_sound_among_others_is_named(client: httpx.AsyncClient, service: Service) -> None:
    response = await client.post(INFER, json=question(CLIP, b"noise", CLIP))
    assert check_error(response, 415, "audio_not_decodable").startswith("sound 1 of 3")
    assert not service.engine._queue.jobs


async def test_together_the_sounds_keep_to_the_limit_of_a_request() -> None:
    async with running(max_audio_seconds=20) as (client, _):
        assert (await client.post(INFER, json=question(CLIP))).status_code == 200
        sentence = check_error(await client.post(INFER, json=question(CLIP, CLIP)), 413, "audio_too_large")
        assert "22 seconds or more" in sentence
        assert "20 seconds" in sentence


async def test_sounds_that_are_too_long_together_are_refused_before_all_is_heard() -> None:
    """Their lengths were added up at the end: 64 sounds of twelve hours each were tagged whole, then refused."""
    async with running(max_audio_seconds=400, max_request_windows_in_flight=2) as (client, service):
        clip = encode(sine(390))
        sentence = check_error(await client.post(INFER, json=question(clip, clip)), 413, "audio_too_large")
        assert "400 seconds" in sentence
        tagged = service.metrics.registry.get_sample_value("hark_windows_total", {"model": "fake"})
        assert tagged < 60, "of 78"


async def test_no_more_sounds_than_an_empty_queue_lets_in() -> None:
    """Three windows of ten seconds never fit a queue of 25: the caller would have been told to come back for ever."""
    async with running(max_queue_audio_seconds=25, max_batch_audio_seconds=20) as (client, _):
        sentence = check_error(await client.post(INFER, json=question(*[CLIP] * 3)), 422, "invalid_input")
        assert "more than 2 elements" in sentence
        rows = np.zeros((3, 5), np.float32)
        check_error(await client.post(INFER, json=waveform(rows)), 422, "invalid_input")
        assert (await client.post(INFER, json=question(CLIP, CLIP))).status_code == 200


async def test_a_full_queue_lets_in_all_sounds_or_none() -> None:
    async with running(max_queue_audio_seconds=40, max_batch_audio_seconds=10) as (client, service):
        fake_runtime(service).batch_delay_seconds = 0.2
        posts = [asyncio.create_task(client.post(INFER, json=question(*[CLIP] * 3))) for _ in range(4)]
        responses = await asyncio.gather(*posts)
        refused = [response for response in responses if response.status_code != 200]
        assert 0 < len(refused) < 4
        for response in refused:
            check_error(response, 503, "overloaded")
        assert not service.engine._queue.jobs


async def test_the_deadline_in_microseconds(client: httpx.AsyncClient, service: Service) -> None:
    fake_runtime(service).batch_delay_seconds = 0.3
    check_error(await client.post(INFER, json=question(CLIP, timeout=50_000)), 504, "timeout")
    assert (await client.post(INFER, json=question(CLIP, timeout=20_000_000))).status_code == 200


@pytest.mark.parametrize("path", [INFER, "/embed"])
async def test_a_caller_who_leaves_cancels_the_work(client: httpx.AsyncClient, service: Service, path: str) -> None:
    fake_runtime(service).batch_delay_seconds = 0.02
    long = encode(sine(300))
    left, body = asyncio.Event(), [orjson.dumps(question(long, long, hop_seconds=0.5)) if path == INFER else long]

    async def receive() -> dict[str, Any]:
        if body:
            return {"type": "http.request", "body": body.pop()}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None: ...

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    calls = len(fake_runtime(service).calls)
    app = client._transport.app  # type: ignore[attr-defined]
    leaving = asyncio.create_task(app({**scope, "asgi": {"version": "3.0"}}, receive, send))
    async with asyncio.timeout(10):
        while len(fake_runtime(service).calls) < calls + 3:
            await asyncio.sleep(0.005)
    left.set()
    await leaving
    assert service.metrics.registry.get_sample_value("hark_cancelled_total") == 1
    assert service.engine.queued_windows(service.models["fake"].lane) == 0
    assert not service.engine._queue.jobs


async def test_a_failing_batch_answers_without_details(client: httpx.AsyncClient, service: Service) -> None:
    fake_runtime(service).poison = 0.123
    clean = sine(1)
    poisoned = np.full_like(clean, 0.123)
    sentence = check_error(
        await client.post(INFER, json=waveform(np.stack([clean, poisoned]))), 500, "inference_failed"
    )
    assert "poison" not in sentence
    assert (await client.post(INFER, json=waveform(clean[None]))).status_code == 200


async def test_probes_before_the_models_are_loaded_and_while_draining(
    client: httpx.AsyncClient, service: Service
) -> None:
    service.begin_drain()
    assert (await client.get("/v2/health/live")).json() == {"live": True}
    for path in ("/v2/health/ready", "/v2/models/fake/ready", "/v2/models/fake", "/v2/models/stats"):
        check_error(await client.get(path), 503, "not_ready")
    check_error(await client.post(INFER, json=question(CLIP)), 503, "not_ready")


async def test_a_key_may_have_any_letters() -> None:
    """Headers are read as Latin-1; a key with an accent was compared in UTF-8 and never matched."""
    async with running(api_keys=["sésame"]) as (client, _):
        headers = {"X-API-Key": "sésame".encode()}
        assert (await client.get("/v2/models/fake", headers=headers)).status_code == 200
        check_error(await client.get("/v2/models/fake", headers={"X-API-Key": "sesame"}), 401, "unauthorized")


async def test_keys_guard_all_but_the_probes() -> None:
    async with running(api_keys=["sesame"]) as (client, _):
        assert (await client.get("/v2/health/ready")).status_code == 200
        check_error(await client.get("/v2/models/fake"), 401, "unauthorized")
        check_error(await client.post(INFER, json=question(CLIP)), 401, "unauthorized")
        assert (await client.get("/v2/models/fake", headers={"X-API-Key": "sesame"})).status_code == 200
