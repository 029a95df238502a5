"""`POST /embed`: window embeddings as JSON and as .npy."""

import io

import httpx
import numpy as np
import pytest

from server.routes.embed import accepts_npy
from server.service import Service
from tests.server.harness import check_error, encode, fake_runtime, running, sine

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

CLIP = encode(np.concatenate([sine(10), sine(8, 2000)]))


async def test_windows_and_their_mean(client: httpx.AsyncClient, service: Service) -> None:
    response = await client.post("/embed", content=CLIP)
    answer = response.json()
    assert [(w["start_seconds"], w["end_seconds"]) for w in answer["embeddings"]] == [(0, 10), (8, 18)]
    windows = np.array([window["embedding"] for window in answer["embeddings"]])
    assert windows.shape == (2, 4)
    assert not np.allclose(windows[0], windows[1])
    assert np.allclose(answer["embedding"], windows.mean(0), atol=1e-6)
    assert answer["model"] == "fake"
    assert answer["duration_seconds"] == 18
    assert answer["request_id"] == response.headers["X-Request-ID"]
    assert answer["provenance"]["runtime"] == "fake"
    assert "Server-Timing" in response.headers
    whole = sine(10)
    expected = fake_runtime(service).run(whole[None], np.array([len(whole)])).embeddings[0]
    assert np.allclose(windows[0], expected, atol=1e-3)


@pytest.mark.parametrize(("query", "accept"), [("?format=npy", "application/json"), ("", "application/octet-stream")])
async def test_npy(client: httpx.AsyncClient, query: str, accept: str) -> None:
    response = await client.post(f"/embed{query}", content=CLIP, headers={"Accept": accept})
    assert response.headers["Content-Type"] == "application/octet-stream"
    array = np.load(io.BytesIO(response.content), allow_pickle=False)
    assert array.dtype == np.float32
    as_json = (await client.post("/embed", content=CLIP)).json()["embeddings"]
    assert np.allclose(array, [window["embedding"] for window in as_json], atol=1e-6)


@pytest.mark.parametrize(
    ("accept", "npy"),
    [
        ("", False),
        ("*/*", False),
        ("application/octet-stream", True),
        ("application/octet-stream, */*;q=0.1", True),
        ("application/json, application/octet-stream", False),
    ],
)
def test_what_accept_asks_for(accept: str, npy: bool) -> None:
    assert accepts_npy(accept) is npy


async def test_parameters_in_the_query_and_the_form(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/embed?model=other&window_seconds=2&hop_seconds=1", content=CLIP)).json()
    assert answer["model"] == "other"
    assert len(answer["embeddings"]) == 17
    files = {"file": ("clip.wav", CLIP)}
    form = await client.post("/embed", data={"window_seconds": "9", "format": "npy", "priority": "batch"}, files=files)
    assert np.load(io.BytesIO(form.content)).shape == (2, 4)


async def test_an_unknown_parameter_is_told_which_there_are(client: httpx.AsyncClient) -> None:
    """The sentence listed `/classify`'s parameters, so who followed it met the next refusal."""
    sentence = check_error(await client.post("/embed?top=3", content=CLIP), 422, "invalid_input")
    assert "hop_seconds, format" in sentence
    assert "top_k" not in sentence


@pytest.mark.parametrize(
    ("path", "body", "status", "error_type"),
    [
        ("/embed", b"", 422, "invalid_input"),
        ("/embed", b"noise" * 50, 415, "audio_not_decodable"),
        ("/embed?model=nope", CLIP, 404, "model_not_found"),
        ("/embed?window_seconds=11", CLIP, 422, "invalid_input"),
        ("/embed?format=csv", CLIP, 422, "invalid_input"),
        ("/embed?top_k=3", CLIP, 422, "invalid_input"),
        ("/embed?priority=high", CLIP, 422, "invalid_input"),
    ],
)
async def test_wrong_requests(client: httpx.AsyncClient, path: str, body: bytes, status: int, error_type: str) -> None:
    check_error(await client.post(path, content=body), status, error_type)


async def test_the_deadline(client: httpx.AsyncClient, service: Service) -> None:
    fake_runtime(service).batch_delay_seconds = 0.3
    check_error(await client.post("/embed?timeout_seconds=0.05", content=CLIP), 504, "timeout")


async def test_a_key_is_needed_where_keys_are_set() -> None:
    async with running(api_keys=["sesame"]) as (client, _):
        check_error(await client.post("/embed", content=CLIP), 401, "unauthorized")
