"""`huggingface_hub.InferenceClient` as it is, against a real server on a real port."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests import media
from tests.server.harness import encode, sine
from tests.server.live import Live, live_server

pytestmark = pytest.mark.timeout(90)

CLIP = encode(sine(1))
KEY = "sesame"
FILES = {
    "clip.wav": "wav 24 bit",
    "clip.flac": "flac",
    "clip.mp3": "mp3",
    "clip.ogg": "ogg vorbis",
    "clip.opus": "opus",
    "clip.m4a": "m4a",
    "clip.aac": "aac",
    "clip.webm": "webm live",
    "wrong.mp3": "m4a",
    "nameless": "wav mu-law",
}


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with live_server(MODELS="fake,other", API_KEYS=KEY) as live:
        yield live


@pytest.fixture
def client(live: Live) -> InferenceClient:
    return InferenceClient(model=live.url, token=KEY)


@pytest.mark.parametrize("path", ["", "/", "/predict", "/models/fake", "/models/other"])
def test_bytes_without_a_type(live: Live, path: str) -> None:
    labels = InferenceClient(model=live.url + path, token=KEY).audio_classification(CLIP)
    assert len(labels) == 5
    assert [label.score for label in labels] == sorted((label.score for label in labels), reverse=True)
    assert all(isinstance(label.label, str) for label in labels)
    assert labels[0]["mid"].startswith("/")


@pytest.mark.parametrize(("name", "kind"), FILES.items())
def test_files_of_every_kind(client: InferenceClient, tmp_path: Path, name: str, kind: str) -> None:
    """The client sends the type that the caller's machine guesses from the name: video/webm, or a wrong one."""
    path = tmp_path / name
    path.write_bytes(media.make(kind, media.sine(16_000, 1.0), 16_000))
    assert len(client.audio_classification(path)) == 5


def test_parameters_come_as_json(client: InferenceClient) -> None:
    assert len(client.audio_classification(CLIP, top_k=3)) == 3
    assert len(client.audio_classification(CLIP, top_k=9999)) == 527
    whole = client.audio_classification(CLIP, top_k=527, function_to_apply="softmax")
    assert sum(label.score for label in whole) == pytest.approx(1, abs=1e-3)
    assert client.audio_classification(CLIP, top_k=1, function_to_apply="none")[0].score > 1


def test_an_address_is_downloaded_by_the_client(live: Live, client: InferenceClient) -> None:
    """The server itself never opens an address that a caller gives; the client's download meets ours here."""
    with pytest.raises(HfHubHTTPError, match="not audio"):
        client.audio_classification(f"{live.url}/docs")


def test_errors_show_our_sentence_and_the_requests_id(live: Live, client: InferenceClient) -> None:
    for sound, said in ((b"this is no audio", "not audio"), (CLIP[:30], "."), (CLIP[:1000], "cut short")):
        with pytest.raises(HfHubHTTPError, match=said) as caught:
            client.audio_classification(sound)
        assert caught.value.response is not None
        assert caught.value.response.headers["x-request-id"] in str(caught.value)
    with pytest.raises(HfHubHTTPError, match="function_to_apply"):
        client.audio_classification(CLIP, function_to_apply="relu")  # type: ignore[arg-type]
    with pytest.raises(HfHubHTTPError, match="no model 'nope'"):
        InferenceClient(model=f"{live.url}/models/nope", token=KEY).audio_classification(CLIP)
    with pytest.raises(HfHubHTTPError, match="the API key is wrong"):
        InferenceClient(model=live.url, token="wrong").audio_classification(CLIP)


def test_health_and_information(live: Live) -> None:
    client = InferenceClient(model=live.url, provider="hf-inference", token=KEY)
    assert client.health_check()
    assert client.get_endpoint_info()["name"] == "hark"


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # the client, about itself
def test_the_asynchronous_client(live: Live) -> None:
    async def ask() -> list[int]:
        async with AsyncInferenceClient(base_url=live.url, token=KEY) as client:  # or its sockets stay open
            answers = await asyncio.gather(*(client.audio_classification(CLIP, top_k=k) for k in (1, 2, 3)))
        return [len(answer) for answer in answers]

    assert asyncio.run(ask()) == [1, 2, 3]


def test_the_browsers_client_sends_parameters_in_the_query(live: Live) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "audio/wav"}
    assert len(httpx.post(f"{live.url}/?top_k=2", content=CLIP, headers=headers).json()) == 2
