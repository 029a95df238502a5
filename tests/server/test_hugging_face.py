"""Hugging Face's audio-classification task on `POST /` and `POST /models/{model}`."""

import base64
from pathlib import Path

import httpx
import pytest

from tests.server.harness import check_error, encode, running, sine

pytestmark = pytest.mark.anyio

CLIP = encode(sine(12))
INPUTS = base64.b64encode(CLIP).decode()


@pytest.mark.parametrize("path", ["/", "/models/fake", "/models/other"])
async def test_raw_bytes_without_a_type(client: httpx.AsyncClient, path: str) -> None:
    response = await client.post(path, content=CLIP)
    assert response.status_code == 200
    answer = response.json()
    assert isinstance(answer, list)
    assert len(answer) == 5
    assert [item["score"] for item in answer] == sorted((item["score"] for item in answer), reverse=True)
    assert "Server-Timing" in response.headers


async def test_the_scores_are_those_of_classify(client: httpx.AsyncClient) -> None:
    task = (await client.post("/", content=CLIP)).json()
    labels = (await client.post("/classify", content=CLIP)).json()["labels"]
    assert [(item["label"], item["score"]) for item in task] == [(label["label"], label["score"]) for label in labels]


@pytest.mark.parametrize(
    ("parameters", "count"), [({}, 5), ({"top_k": 3}, 3), ({"top_k": 9999}, 527), ({"top_k": None}, 527), (None, 5)]
)
async def test_json_with_base64(client: httpx.AsyncClient, parameters: dict[str, int] | None, count: int) -> None:
    response = await client.post("/", json={"inputs": INPUTS, "parameters": parameters})
    assert len(response.json()) == count


async def test_query_parameters_go_with_raw_bytes(client: httpx.AsyncClient) -> None:
    assert len((await client.post("/?top_k=2", content=CLIP)).json()) == 2
    assert len((await client.post("/?top_k=2", files={"file": ("clip.wav", CLIP)})).json()) == 2


async def test_function_to_apply(client: httpx.AsyncClient) -> None:
    async def scores(function: str) -> list[float]:
        task = {"inputs": INPUTS, "parameters": {"function_to_apply": function, "top_k": 527}}
        return [item["score"] for item in (await client.post("/", json=task)).json()]

    assert sum(await scores("softmax")) == pytest.approx(1, abs=0.05)  # highest over two windows, so a little more
    logits = await scores("none")
    assert len(logits) == 527
    assert min(logits) < 0
    assert max(logits) > 1
    assert all(0 <= score <= 1 for score in await scores("sigmoid"))


@pytest.mark.parametrize(
    ("body", "status", "error_type"),
    [
        (b"", 422, "invalid_input"),
        (b"{", 422, "invalid_input"),
        (b"[]", 422, "invalid_input"),
        (b"{}", 422, "invalid_input"),
        (b'{"inputs": 3}', 422, "invalid_input"),
        (b'{"inputs": ""}', 422, "invalid_input"),
        (b'{"inputs": "not base64!"}', 422, "invalid_input"),
        (b'{"inputs": "AAAA"}', 415, "audio_not_decodable"),
        (b'{"inputs": "AAAA", "parameters": {"top_k": 0}}', 422, "invalid_input"),
        (b'{"inputs": "AAAA", "parameters": {"top_k": "x"}}', 422, "invalid_input"),
        (b'{"inputs": "AAAA", "parameters": {"function_to_apply": "relu"}}', 422, "invalid_input"),
        (b'{"inputs": "AAAA", "parameters": {"topk": 1}}', 422, "invalid_input"),
        (b'{"inputs": "AAAA", "parameters": []}', 422, "invalid_input"),
    ],
)
async def test_bad_tasks(client: httpx.AsyncClient, body: bytes, status: int, error_type: str) -> None:
    response = await client.post("/", content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    check_error(response, status, error_type)


async def test_bad_raw_bodies(client: httpx.AsyncClient) -> None:
    check_error(await client.post("/", content=b""), 422, "invalid_input")
    check_error(await client.post("/", content=b"noise" * 100), 415, "audio_not_decodable")
    check_error(await client.post("/?function_to_apply=relu", content=CLIP), 422, "invalid_input")


async def test_form_fields_are_parameters_too_and_the_query_wins(client: httpx.AsyncClient) -> None:
    """`-F top_k=1` was ignored without a word."""
    files = {"file": ("clip.wav", CLIP)}
    for path in ("/", "/models/other"):
        assert len((await client.post(path, data={"top_k": "1"}, files=files)).json()) == 1
        assert len((await client.post(f"{path}?top_k=2", data={"top_k": "1"}, files=files)).json()) == 2
        sentence = check_error(await client.post(path, data={"topk": "1"}, files=files), 422, "invalid_input")
        assert sentence == "there is no parameter 'topk'; there are: top_k, function_to_apply"


async def test_base64_may_have_line_breaks(client: httpx.AsyncClient) -> None:
    """`base64 clip.wav` breaks its lines, and was refused."""
    broken = base64.encodebytes(CLIP).decode().replace("\n", "\r\n")
    assert (await client.post("/", json={"inputs": broken})).json() == (await client.post("/", content=CLIP)).json()


@pytest.mark.parametrize(
    "task", [{"inputs": INPUTS, "parameters": {"topk": 1}}, {"inputs": INPUTS, "parameters": 1}, []]
)
async def test_a_bad_task_is_explained_in_its_own_names(client: httpx.AsyncClient, task: object) -> None:
    """The sentence named our classes, and for a wrong parameter the names of the body's other fields."""
    sentence = check_error(await client.post("/", json=task), 422, "invalid_input")
    assert "HuggingFace" not in sentence
    assert "topk" not in str(task) or "there are: top_k, function_to_apply" in sentence


async def test_a_models_name_may_have_a_slash(client: httpx.AsyncClient) -> None:
    """`/models/MIT/ast` was no path at all; now it is a model that is not served."""
    check_error(await client.post("/models/MIT/ast", content=CLIP), 404, "model_not_found")


async def test_taught_classes_stand_among_the_others(tmp_path: Path) -> None:
    async with running(classes_folder=tmp_path) as (client, _):
        files = [("file", (f"{rate}.wav", encode(1.8 * sine(1, rate)))) for rate in (5000, 5020, 5040, 5060)]
        assert (await client.put("/classes/beep", files=files)).status_code == 201
        beep = encode(1.8 * sine(1, 5030))
        for query, count in (("", 528), ("&function_to_apply=sigmoid", 528), ("&function_to_apply=softmax", 527)):
            labels = (await client.post(f"/?top_k=999{query}", content=beep)).json()
            assert len(labels) == count
            assert ("/own/beep" in [label["mid"] for label in labels]) == (count == 528)
        metadata = (await client.get("/v2/models/fake")).json()
        assert metadata["outputs"][0]["shape"] == [-1, 528]
        tensor = {"name": "audio", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(beep).decode()]}
        outputs = [{"name": "scores"}, {"name": "mids"}]
        answer = (await client.post("/v2/models/fake/infer", json={"inputs": [tensor], "outputs": outputs})).json()
        scores = dict(zip(answer["outputs"][1]["data"], answer["outputs"][0]["data"], strict=True))
        task = (await client.post("/?top_k=999", content=beep)).json()
        assert scores == pytest.approx({label["mid"]: label["score"] for label in task})


async def test_the_postprocess_stage_is_metered(client: httpx.AsyncClient) -> None:
    """This route alone ranked its labels without a word to `hark_stage_duration_seconds`."""
    await client.post("/", content=CLIP)
    text = (await client.get("/metrics")).text
    assert 'hark_stage_duration_seconds_count{model="fake",stage="postprocess"} 1.0' in text
