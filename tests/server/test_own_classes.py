"""Taught classes over HTTP: what comes of a handful of clips, where it shows, and every wrong form of asking."""

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import structlog
import torch

from model.checkpoint import load
from model.class_store import ClassStore
from model.own_classes import OwnClass
from model.pipeline import tag
from model.registry import find_checkpoint
from model.teaching import LinearHead, Quality
from server.fake_checkpoint import fake_checkpoint
from server.own_classes import ClassRoom, read_classes
from server.service import Service
from tests.server.harness import check_error, encode, running, sine

pytestmark = pytest.mark.anyio

Files = list[tuple[str, tuple[str, bytes]]]


def tones(count: int = 4, frequency_hz: float = 5000, field: str = "file") -> Files:
    """Loud tones, which the fake runtime's embeddings tell from everything in the background set."""
    return [
        (field, (f"tone{place}.wav", encode(1.8 * sine(1 + place / 10, frequency_hz + 20 * place))))
        for place in range(count)
    ]


@pytest.fixture
async def taught(tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    async with running(classes_folder=tmp_path / "classes", max_own_classes=2) as pair:
        yield pair


async def put(
    client: httpx.AsyncClient, name: str = "beep", files: Files | None = None, **params: Any
) -> httpx.Response:
    return await client.put(f"/classes/{name}", files=tones() if files is None else files, params=params)


async def test_a_taught_class_stands_in_every_answer(taught: tuple[httpx.AsyncClient, Service]) -> None:
    client, _ = taught
    answer = await put(client)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["name"], made["mid"], made["model"], made["version"]) == ("beep", "/own/beep", "fake", 1)
    assert made["quality"]["told_apart"] is True
    assert made["quality"]["average_precision"] == made["quality"]["recall"] == 1
    assert made["message"].startswith("'beep' is told apart")
    heard = (await client.post("/classify?top_k=1000", content=encode(1.8 * sine(25, 5000)))).json()
    scores = {label["mid"]: label["score"] for label in heard["labels"]}
    assert len(scores) == 528
    assert scores["/own/beep"] > made["quality"]["threshold"]
    assert all("/own/beep" in [label["mid"] for label in window["labels"]] for window in heard["windows"])
    events = [event for event in heard["events"] if event["mid"] == "/own/beep"]
    assert [(event["label"], event["start_seconds"], event["end_seconds"]) for event in events] == [("beep", 0, 25)]
    quiet = (await client.post("/classify?top_k=1000", content=encode(0.1 * sine(25, 100)))).json()
    assert {label["mid"]: label["score"] for label in quiet["labels"]}["/own/beep"] < made["quality"]["threshold"]
    labels = (await client.get("/labels")).json()["labels"]
    expected = {
        "index": 527,
        "mid": "/own/beep",
        "name": "beep",
        "parents": [],
        "threshold": made["quality"]["threshold"],
    }
    assert labels[-1] == expected
    streamed = await client.post("/classify?top_k=1000&format=jsonl", content=encode(1.8 * sine(25, 5000)))
    assert streamed.text.count("/own/beep") == 5  # three windows, the clip's labels, one event


async def test_it_is_listed_replaced_and_deleted(taught: tuple[httpx.AsyncClient, Service]) -> None:
    client, _ = taught
    first = (await put(client)).json()
    assert (await client.get("/classes")).json() == {"model": "fake", "classes": [first]}
    assert (await client.get("/classes/BEEP")).json() == first
    second = await put(client, "Beep", tones(5))
    assert second.status_code == 200
    assert (second.json()["version"], second.json()["name"], second.json()["quality"]["clips"]) == (2, "Beep", 5)
    assert [own["version"] for own in (await client.get("/classes")).json()["classes"]] == [2]
    assert (await client.delete("/classes/beep")).status_code == 204
    assert (await client.get("/classes")).json()["classes"] == []
    assert len((await client.get("/labels")).json()["labels"]) == 527
    assert "there are: none" in check_error(await client.get("/classes/beep"), 404, "class_not_found")
    check_error(await client.delete("/classes/beep"), 404, "class_not_found")
    check_error(await client.get("/classes", params={"model": "nobody"}), 404, "model_not_found")


async def test_it_survives_a_restart_and_a_broken_file_does_not_stop_one(tmp_path: Path) -> None:
    async with running(classes_folder=tmp_path) as (client, _):
        made = (await put(client)).json()
        await put(client)
    newest = max(tmp_path.rglob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-9])
    async with running(classes_folder=tmp_path) as (client, _):
        assert (await client.get("/classes")).json()["classes"] == [made], "the version before it counts"


async def test_what_cannot_be_told_apart_is_said_so(taught: tuple[httpx.AsyncClient, Service]) -> None:
    client, _ = taught
    made = (await put(client, files=[*tones(4), *tones(4, field="negative")])).json()
    assert made["quality"]["told_apart"] is False
    assert made["message"].startswith("'beep' cannot be told apart from the negatives you gave")
    assert (await put(client, "other")).json()["quality"]["confused_with"] == "your class 'beep'"


@pytest.mark.parametrize(
    ("name", "error_type", "status", "part"),
    [
        ("x" * 65, "invalid_input", 422, "1 to 64 characters"),
        ("%20beep", "invalid_input", 422, "without spaces around"),
        ("a/b", "invalid_input", 422, "not '/'"),
        ("a%00b", "invalid_input", 422, "letters, digits"),
        ("a%07b", "invalid_input", 422, "letters, digits"),
        ("-beep", "invalid_input", 422, "the first one is not '-'"),
        ("%E2%80%AEbeep", "invalid_input", 422, "letters, digits"),  # turns the writing around
        ("Dog", "conflict", 409, "has a label 'Dog' already"),
        ("dOG", "conflict", 409, "has a label 'Dog' already"),
    ],
)
async def test_silly_names(
    taught: tuple[httpx.AsyncClient, Service], name: str, error_type: str, status: int, part: str
) -> None:
    assert part in check_error(await put(taught[0], name), status, error_type)


@pytest.mark.parametrize(
    ("files", "status", "error_type", "part"),
    [
        (tones(2), 422, "invalid_input", "at least 3 clips and got 2"),
        (tones(4, field="negative"), 422, "invalid_input", "at least 3 clips and got 0"),
        ([*tones(3), ("file", ("broken.wav", b"this is no sound"))], 415, "audio_not_decodable", "file 4 (broken.wav)"),
        ([*tones(3), ("negative", ("n.wav", encode(np.zeros(0))))], 422, "invalid_input", "negative 1 (n.wav)"),
        ([*tones(3), ("file", ("none.wav", b""))], 422, "invalid_input", "file 4 (none.wav) is empty"),
        ([*tones(3), ("file", ("long.wav", encode(sine(61, rate=2000), 2000)))], 413, "audio_too_large", "long.wav"),
        ([*tones(3), ("clip", ("c.wav", b"x"))], 422, "invalid_input", "no field 'clip'"),
        (tones(101), 422, "invalid_input", "multipart body cannot be read"),
    ],
)
async def test_wrong_clips(
    taught: tuple[httpx.AsyncClient, Service], files: Files, status: int, error_type: str, part: str
) -> None:
    client, service = taught
    assert part in check_error(await put(client, files=files), status, error_type)
    assert not service.own_classes.of(fake_checkpoint("fake"))
    assert not service.engine._queue.jobs


async def test_a_body_that_is_no_form(taught: tuple[httpx.AsyncClient, Service]) -> None:
    response = await taught[0].put("/classes/beep", content=encode(sine(1)))
    assert "multipart form" in check_error(response, 422, "invalid_input")
    text = await taught[0].put("/classes/beep", files=[*tones(3), ("file", (None, b"text"))])
    assert "file 4 has no filename" in check_error(text, 422, "invalid_input")


async def test_too_many_classes(taught: tuple[httpx.AsyncClient, Service]) -> None:
    client, _ = taught
    assert [(await put(client, name)).status_code for name in ("one", "two")] == [201, 201]
    assert "delete one" in check_error(await put(client, "three"), 409, "conflict")
    assert (await put(client, "two")).status_code == 200, "a new version is not one more"


async def test_puts_of_one_name_at_once_make_a_version_each(taught: tuple[httpx.AsyncClient, Service]) -> None:
    client, _ = taught
    answers = await asyncio.gather(*(put(client) for _ in range(4)))
    assert sorted(answer.json()["version"] for answer in answers) == [1, 2, 3, 4]
    assert (await client.get("/classes/beep")).json()["version"] == 4


async def test_a_disk_that_refuses_changes_nothing(
    taught: tuple[httpx.AsyncClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = taught
    made = (await put(client)).json()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with structlog.testing.capture_logs() as lines:
        check_error(await put(client), 507, "not_stored")
        check_error(await client.delete("/classes/beep"), 507, "not_stored")
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["not_stored", "not_stored"]
    monkeypatch.undo()
    assert (await client.get("/classes")).json()["classes"] == [made]


async def test_where_admin_keys_are_set_teaching_needs_one(tmp_path: Path) -> None:
    async with running(classes_folder=tmp_path, api_keys="user", admin_keys="boss") as (client, _):
        user, boss = ({"X-API-Key": key} for key in ("user", "boss"))
        check_error(await client.put("/classes/beep", files=tones(), headers=user), 403, "forbidden")
        check_error(await client.put("/classes/beep", files=tones()), 401, "unauthorized")
        assert (await client.put("/classes/beep", files=tones(), headers=boss)).status_code == 201
        check_error(await client.delete("/classes/beep", headers=user), 403, "forbidden")
        assert len((await client.get("/classes", headers=user)).json()["classes"]) == 1


async def test_each_model_has_its_own(tmp_path: Path) -> None:
    async with running(classes_folder=tmp_path) as (client, service):
        await put(client)
        served = service.models["other"].checkpoint
        object.__setattr__(served, "weights_sha256", "1" * 64)
        assert len((await client.get("/labels", params={"model": "other"})).json()["labels"]) == 527
        made = (await put(client, "drone", model="other")).json()
        assert made["model"] == "other"
        assert [own["name"] for own in (await client.get("/classes?model=other")).json()["classes"]] == ["drone"]


@pytest.mark.checkpoint
async def test_the_servers_scores_are_the_offline_pipelines(tmp_path: Path) -> None:
    """Taught in the server, stored, read back by `hark classify`'s own function, and heard the same."""
    async with running(runtime="torch", models=["aum-tiny"], classes_folder=tmp_path, max_batch_audio_seconds=10) as (
        client,
        _,
    ):
        assert (await put(client)).json()["quality"]["told_apart"] is True
        sound = encode(sine(12, 5000))
        answer = (await client.post("/classify?top_k=1000&rollup=true", content=sound)).json()
    checkpoint = load(find_checkpoint("aum-tiny"))
    own = read_classes(tmp_path, checkpoint)
    tagging = tag(sound, checkpoint, top_k=1000, rollup=True, own_classes=own)
    expected = {label.mid: label.score for label in tagging.labels}
    assert "/own/beep" in expected
    assert {label["mid"]: label["score"] for label in answer["labels"]} == pytest.approx(expected, abs=1e-4)
    assert [event["mid"] for event in answer["events"]] == [event.mid for event in tagging.events]


async def test_a_class_of_another_width_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A stored class with the network's checksum but another width broke every answer of the model."""
    network = torch.nn.Module()
    network.head = torch.nn.Linear(6, 2)
    checkpoint = replace(fake_checkpoint("fake"), network=network)
    for width in (6, 5):
        head, examples = LinearHead(np.ones(width, np.float32), 0.0), np.ones((3, width), np.float32)
        quality = Quality(1.0, 0.5, 1.0, 1.0, 3, 54)
        ClassStore(tmp_path).write(OwnClass(f"of {width}", 0, "", checkpoint.weights_sha256, head, quality, examples))
    for classes in (read_classes(tmp_path, checkpoint), ClassRoom(tmp_path, 5).of(checkpoint)):
        assert [own.name for own in classes] == ["of 6"]
    assert "'of 5' passed over: it takes 5 features, but fake has 6" in caplog.text
