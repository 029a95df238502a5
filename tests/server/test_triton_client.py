"""`tritonclient[http]` as it is, against a real server on a real port: plain, binary, compressed and concurrent."""

import asyncio
import base64
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.server.harness import RATE, encode, sine
from tests.server.live import Live, live_server

pytestmark = pytest.mark.timeout(90)

CLIPS = [encode(sine(1)), encode(sine(12, 880), container="FLAC")]
ADMIN = {"X-API-Key": "root"}


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server(MODELS="fake,other", ADMIN_KEYS="root") as live:
        yield live


@pytest.fixture(scope="module")
def client(live: Live) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(live.url.removeprefix("http://"), concurrency=4)
    yield client
    client.close()


def audio_input(clips: list[bytes] = CLIPS) -> triton.InferInput:
    tensor = triton.InferInput("audio", [len(clips)], "BYTES")
    tensor.set_data_from_numpy(np.array(clips, dtype=np.object_), binary_data=True)
    return tensor


def waveform_input(rows: np.ndarray, *, binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("waveform", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows, binary_data=binary)
    return tensor


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("fake")
    assert client.is_model_ready("fake", "1")
    assert not client.is_model_ready("fake", "2")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata()["name"] == "hark"
    metadata = client.get_model_metadata("fake", "1")
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["audio", "waveform"]
    assert metadata["outputs"][0] == {"name": "scores", "datatype": "FP32", "shape": [-1, 527]}
    config = client.get_model_config("fake")
    assert {tensor["data_type"] for tensor in config["input"]} == {"TYPE_STRING", "TYPE_FP32"}
    assert [model["name"] for model in client.get_model_repository_index()] == ["fake", "other"]


def test_files_as_bytes_and_outputs_as_bytes(client: triton.InferenceServerClient) -> None:
    """Without a list of outputs the client asks for all of them in binary."""
    result = client.infer("fake", [audio_input()], request_id="mine")
    assert result.get_response()["id"] == "mine"
    scores, labels = result.as_numpy("scores"), result.as_numpy("labels")
    assert scores.shape == (2, 527)
    assert scores.dtype == np.float32
    assert labels.shape == (527,)
    assert labels[0] == b"Speech"
    alone = client.infer("other", [audio_input(CLIPS[1:])], model_version="1").as_numpy("scores")
    assert np.array_equal(alone[0], scores[1])


@pytest.mark.parametrize("binary_input", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
def test_waveforms(client: triton.InferenceServerClient, binary_input: bool, binary_output: bool) -> None:
    rows = np.stack([sine(0.5), sine(0.5, 1000)])
    outputs = [triton.InferRequestedOutput("scores", binary_data=binary_output)]
    tensor = waveform_input(rows, binary=binary_input)
    scores = client.infer("fake", [tensor], outputs=outputs, parameters={"sampling_rate": RATE}).as_numpy("scores")
    files = client.infer("fake", [audio_input([encode(sine(0.5)), encode(sine(0.5, 1000))])]).as_numpy("scores")
    assert np.allclose(scores, files, atol=1e-3), "the files have 16 bits"
    assert not np.allclose(scores[0], scores[1], atol=1e-3)


@pytest.mark.parametrize("asked", ["gzip", "deflate"])
def test_compression_both_ways(client: triton.InferenceServerClient, asked: str) -> None:
    plain = client.infer("fake", [audio_input()]).as_numpy("scores")
    compressed = client.infer(
        "fake", [audio_input()], request_compression_algorithm=asked, response_compression_algorithm=asked
    )
    assert np.array_equal(compressed.as_numpy("scores"), plain)


def test_classification(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("scores", class_count=3), triton.InferRequestedOutput("embeddings")]
    result = client.infer("fake", [audio_input()], outputs=outputs)
    best = result.as_numpy("scores")
    assert best.shape == (2, 3)
    values = [float(text.split(b":")[0]) for text in best[0]]
    assert values == sorted(values, reverse=True)
    assert result.as_numpy("embeddings").shape == (2, 4)
    assert result.as_numpy("labels") is None


def test_base64_in_json_and_priority_and_timeout(client: triton.InferenceServerClient) -> None:
    text = np.array([base64.b64encode(CLIPS[0]).decode()], dtype=np.object_)
    tensor = triton.InferInput("audio", [1], "BYTES")
    tensor.set_data_from_numpy(text, binary_data=False)
    result = client.infer("fake", [tensor], priority=2, timeout=20_000_000)
    assert result.as_numpy("scores").shape == (1, 527)


def test_requests_at_once(client: triton.InferenceServerClient) -> None:
    running = [client.async_infer("fake", [audio_input()]) for _ in range(8)]
    scores = [request.get_result(timeout=30).as_numpy("scores") for request in running]
    assert all(np.array_equal(scores[0], other) for other in scores)


def test_errors_carry_the_servers_sentence(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="no model 'nope'") as caught:
        client.infer("nope", [audio_input()])
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="sampling_rate") as caught:
        client.infer("fake", [waveform_input(sine(1)[None])])
    assert caught.value.status() == "422"
    with pytest.raises(InferenceServerException, match=r"sound 1 of 2.*not audio|sound 1 of 2") as caught:
        client.infer("fake", [audio_input([CLIPS[0], b"this is no audio"])])
    assert caught.value.status() == "415"


def test_the_asynchronous_client(live: Live) -> None:
    async def ask() -> list[tuple[int, ...]]:
        async with triton_aio.InferenceServerClient(live.url.removeprefix("http://")) as client:
            assert await client.is_server_ready()
            answers = await asyncio.gather(*(client.infer("fake", [audio_input()]) for _ in range(3)))
        return [answer.as_numpy("scores").shape for answer in answers]

    assert asyncio.run(ask()) == [(2, 527)] * 3


def test_statistics_count_requests(client: triton.InferenceServerClient) -> None:
    def success() -> int:
        return client.get_inference_statistics("other")["model_stats"][0]["inference_stats"]["success"]["count"]

    before = success()
    client.infer("other", [audio_input()])
    assert success() == before + 1
    assert len(client.get_inference_statistics()["model_stats"]) == 2


def test_models_come_and_go(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="send an API key"):
        client.load_model("aum-tiny")
    client.load_model("aum-tiny", headers=ADMIN)
    assert client.infer("aum-tiny", [audio_input()]).as_numpy("scores").shape == (2, 527)
    with pytest.raises(InferenceServerException, match="send no parameters"):
        client.load_model("aum-tiny", headers=ADMIN, config="{}")
    client.unload_model("aum-tiny", headers=ADMIN)
    assert not client.is_model_ready("aum-tiny")
