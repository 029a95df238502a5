"""`POST /classify`: the contract's answer, however the sound arrives."""

import csv
import io
import json

import httpx
import numpy as np
import pytest

from model.pipeline import Tagging, event_rules
from model.scores import TagOptions, logits_to_scores, summarise
from model.windows import WindowGrid, cut_windows
from server.service import Service
from tests.server.harness import RATE, check_error, encode, fake_runtime, sine

pytestmark = pytest.mark.anyio

CLIP = encode(sine(25))


def expected(service: Service, waveform: np.ndarray, top_k: int = 5) -> Tagging:
    """What the fake model's own logits make of the waveform, without a server."""
    model = service.models["fake"]
    grid = WindowGrid(10 * RATE, 10 * RATE)
    windows = list(cut_windows([waveform], grid))
    rows = [model.lane.runtime.run(w.waveform[None], np.array([len(w.waveform)])).logits[0] for w in windows]
    spans = [(w.start_sample / RATE, w.end_sample / RATE) for w in windows]
    scores = logits_to_scores(np.stack(rows), "sigmoid")
    options = TagOptions(top_k=top_k, rules=event_rules(model.checkpoint))
    labels, tags, events = summarise(scores, spans, model.checkpoint.labels, options)
    return Tagging("fake", len(waveform) / RATE, RATE, labels, tags, events, scores)


async def test_the_answer_is_the_contracts(client: httpx.AsyncClient, service: Service) -> None:
    response = await client.post("/classify", files={"file": ("clip.wav", CLIP)}, headers={"X-Request-ID": "abc"})
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    answer = response.json()
    assert list(answer) == [
        *("model", "duration_seconds", "sample_rate", "labels", "windows", "events"),
        *("timing", "provenance", "request_id"),
    ]
    assert (answer["model"], answer["duration_seconds"], answer["sample_rate"]) == ("fake", 25.0, 16000)
    assert [(w["start_seconds"], w["end_seconds"]) for w in answer["windows"]] == [(0, 10), (10, 20), (15, 25)]
    assert answer["request_id"] == response.headers["X-Request-ID"] == "abc"
    assert answer["provenance"] == {
        **{"weights_sha256": "0" * 64, "runtime": "fake", "precision": "float32", "device": "cpu", "scan": None},
    }
    waveform = np.round(sine(25) * 32768) / 32768  # what 16 bits keep
    tagging = expected(service, waveform.astype(np.float32))
    for got, wanted in zip(answer["labels"], tagging.labels, strict=True):
        assert (got["mid"], got["label"]) == (wanted.mid, wanted.label)
        assert got["score"] == pytest.approx(wanted.score, abs=1e-4)
    assert len(answer["events"]) == len(tagging.events)
    assert set(answer["events"][0]) == {"mid", "label", "start_seconds", "end_seconds", "score"}


async def test_times_stand_in_the_body_and_in_the_header(client: httpx.AsyncClient, service: Service) -> None:
    fake_runtime(service).batch_delay_seconds = 0.05
    response = await client.post("/classify", content=CLIP)
    timing = response.json()["timing"]
    assert list(timing) == ["decode_ms", "queue_ms", "features_ms", "inference_ms", "total_ms"]
    assert timing["inference_ms"] >= 50
    assert timing["total_ms"] >= timing["inference_ms"]
    header = dict(part.split(";dur=") for part in response.headers["Server-Timing"].split(", "))
    assert {f"{name}_ms": float(value) for name, value in header.items()} == timing


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "audio/wav",
        "video/webm",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "text/plain",
        ";;",
    ],
)
async def test_the_declared_type_does_not_matter(client: httpx.AsyncClient, content_type: str | None) -> None:
    multipart = (await client.post("/classify", files={"file": ("x", CLIP, "text/html")})).json()
    headers = {} if content_type is None else {"Content-Type": content_type}
    raw = await client.post("/classify", content=CLIP, headers=headers)
    assert raw.status_code == 200
    assert raw.json()["labels"] == multipart["labels"]


@pytest.mark.parametrize("container", ["FLAC", "OGG", "MP3"])
async def test_containers_and_rates(client: httpx.AsyncClient, container: str) -> None:
    stereo = np.stack([sine(2, rate=44_100), sine(2, rate=44_100)], axis=1)
    answer = (await client.post("/classify", content=encode(stereo, 44_100, container))).json()
    assert answer["duration_seconds"] == pytest.approx(2, abs=0.1)
    assert len(answer["windows"]) == 1


async def test_parameters_shape_the_answer(client: httpx.AsyncClient) -> None:
    query = {"model": "other", "top_k": 3, "threshold": 0.9, "window_seconds": 5, "hop_seconds": 2.5}
    answer = (await client.post("/classify", params=query, content=CLIP)).json()
    assert answer["model"] == "other"
    assert len(answer["labels"]) == 3
    assert [w["start_seconds"] for w in answer["windows"]] == [2.5 * i for i in range(9)]
    assert all(label["score"] >= 0.9 for w in answer["windows"] for label in w["labels"])


async def test_rollup_lifts_parents(client: httpx.AsyncClient) -> None:
    every = {"top_k": 1000}
    plain = (await client.post("/classify", params=every, content=CLIP)).json()["labels"]
    lifted = (await client.post("/classify", params={**every, "rollup": True}, content=CLIP)).json()["labels"]
    scores = {label["label"]: label["score"] for label in lifted}
    assert len(lifted) > len(plain) == 527
    assert scores["Animal"] >= max(label["score"] for label in plain if label["label"] in ("Dog", "Bark", "Cat"))


async def test_form_fields_are_parameters_too_and_the_query_wins(client: httpx.AsyncClient) -> None:
    form = {"files": {"file": ("clip.wav", CLIP)}, "data": {"top_k": "2", "model": "other"}}
    answer = (await client.post("/classify", **form)).json()
    assert (answer["model"], len(answer["labels"])) == ("other", 2)
    answer = (await client.post("/classify?top_k=4", **form)).json()
    assert (answer["model"], len(answer["labels"])) == ("other", 4)


async def test_formats(client: httpx.AsyncClient) -> None:
    async def text(name: str) -> httpx.Response:
        form = {"file": ("my clip.wav", CLIP)}
        response = await client.post("/classify", params={"format": name, "top_k": 2}, files=form)
        assert response.status_code == 200
        assert "Server-Timing" in response.headers
        return response

    lines = [json.loads(line) for line in (await text("jsonl")).text.splitlines()]
    assert [line["type"] for line in lines] == ["window"] * 3 + ["summary"]
    rows = list(csv.DictReader(io.StringIO((await text("csv")).text)))
    assert {row["kind"] for row in rows} >= {"clip", "window"}
    assert rows[0]["source"] == "my clip.wav"
    assert (await text("webvtt")).text.startswith("WEBVTT\n")
    assert (await text("webvtt")).headers["Content-Type"].startswith("text/vtt")
    assert (await text("audacity")).text.count("\t") >= 2
    assert (await text("raven")).text.startswith("Selection\t")


async def test_many_at_once_are_batched_and_answered_each_with_its_own(
    client: httpx.AsyncClient, service: Service
) -> None:
    import asyncio

    fake_runtime(service).batch_delay_seconds = 0.05
    clips = [encode(sine(0.5, frequency)) for frequency in range(100, 3400, 100)]
    alone = [(await client.post("/classify", content=clip)).json()["labels"] for clip in clips]
    fake_runtime(service).calls.clear()
    together = await asyncio.gather(*(client.post("/classify", content=clip) for clip in clips))
    assert [response.json()["labels"] for response in together] == alone
    assert max(fake_runtime(service).calls) == 4


async def test_a_sentence_names_only_the_first_of_many_wrong_parameters(client: httpx.AsyncClient) -> None:
    response = await client.post("/classify", params={f"x{i}": "1" for i in range(20)}, content=b"never read")
    assert response.status_code == 422
    assert response.json()["error"].count("there is no parameter") == 8
    assert response.json()["error"].endswith("; and 12 more")


async def test_a_long_sound_keeps_few_windows_in_flight(client: httpx.AsyncClient, service: Service) -> None:
    waiting: list[int] = []
    runtime = fake_runtime(service)
    lane = service.models["fake"].lane
    original = runtime.run

    def watch(waveforms: np.ndarray, lengths: np.ndarray, batches: int = 1):  # type: ignore[no-untyped-def]
        waiting.append(service.engine.queued_windows(lane) + len(waveforms))
        return original(waveforms, lengths, batches)

    runtime.run = watch  # type: ignore[method-assign]
    response = await client.post("/classify?hop_seconds=1", content=encode(sine(200)))
    assert len(response.json()["windows"]) == 191
    assert max(waiting) <= service.settings.max_request_windows_in_flight


async def test_too_many_windows_are_refused(service: Service, client: httpx.AsyncClient) -> None:
    from tests.server.harness import running

    async with running(max_request_windows=10) as (small, _):
        sentence = check_error(await small.post("/classify?hop_seconds=1", content=CLIP), 422, "invalid_input")
        assert "hop_seconds" in sentence
