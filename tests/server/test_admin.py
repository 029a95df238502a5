"""Models loaded, replaced and deleted while serving, for callers with an admin key."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from server import model_source
from server.model_pool import KEPT_FAILURES
from server.served_models import RuntimeDriftError, ServedModel, load_model
from server.service import Service
from server.settings import Settings
from tests.server.harness import check_error, encode, fake_runtime, running, sine

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

CLIP = encode(sine(1))
LONG = encode(sine(200))
ADMIN = {"X-API-Key": "root"}
BUNDLED = {"source": "aum-tiny"}  # on the fake runtime a name is all that is read


def admin(**settings: Any) -> Any:
    return running(admin_keys=["root"], **settings)


class Loader:
    """Stands in for loading: waits to be let go, may fail, and keeps what it loaded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = threading.Event()
        self.go.set()
        self.started = threading.Event()
        self.error: Exception | None = None
        self.loaded: list[ServedModel] = []
        self.closed: list[str] = []
        monkeypatch.setattr(model_source, "load_model", self)

    def __call__(self, name: str, settings: Settings) -> ServedModel:
        self.started.set()
        assert self.go.wait(10)
        if self.error is not None:
            raise self.error
        self.loaded.append(load_model(name, settings))
        return self.watch(self.loaded[-1])

    def watch(self, model: ServedModel) -> ServedModel:
        """Notes when the model's runtime is closed."""
        model.lane.runtime.close = lambda: self.closed.append(model.name)  # type: ignore[method-assign]
        return model


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Loader:
    return Loader(monkeypatch)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def accept_slowly(client: httpx.AsyncClient, service: Service, model: str) -> "asyncio.Task[httpx.Response]":
    """Lets the model tag a long sound, and returns while it does."""
    runtime = fake_runtime(service, model)
    runtime.batch_delay_seconds = 0.05
    calls = len(runtime.calls)
    post = asyncio.create_task(client.post(f"/classify?model={model}", content=LONG))
    await until(lambda: len(runtime.calls) > calls)
    return post


async def names(client: httpx.AsyncClient) -> list[str]:
    return [model["name"] for model in (await client.get("/models")).json()["models"]]


def series(service: Service, model: str) -> list[str]:
    return [line for line in service.metrics.render().decode().splitlines() if f'model="{model}"' in line]


# Who may


async def test_without_admin_keys_nobody_may() -> None:
    async with running(api_keys=["sesame"]) as (client, _):
        for headers in ({}, {"X-API-Key": "sesame"}):
            for response in (
                await client.put("/models/new", json=BUNDLED, headers=headers),
                await client.delete("/models/other", headers=headers),
                await client.post("/v2/repository/models/aum-tiny/load", headers=headers),
                await client.post("/v2/repository/models/other/unload", headers=headers),
            ):
                assert "HARK_ADMIN_KEYS" in check_error(response, 403, "forbidden")


async def test_an_admin_key_is_needed_and_opens_everything_else_too() -> None:
    async with admin(api_keys=["sesame"]) as (client, _):
        put = {"url": "/models/new", "json": BUNDLED}
        response = await client.put(**put)
        check_error(response, 401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == "Bearer"
        check_error(await client.put(**put, headers={"X-API-Key": "wrong"}), 401, "unauthorized")
        check_error(await client.put(**put, headers={"X-API-Key": "sesame"}), 403, "forbidden")
        check_error(await client.delete("/models/other", headers={"X-API-Key": "sesame"}), 403, "forbidden")
        assert (await client.put(**put, headers={"Authorization": "Bearer root"})).status_code == 201
        assert (await client.post("/classify?model=new", content=CLIP, headers=ADMIN)).status_code == 200


# Loading


async def test_a_model_comes_under_its_name_while_others_answer(loader: Loader) -> None:
    async with admin() as (client, service):
        loader.go.clear()
        put = asyncio.create_task(client.put("/models/birds", json=BUNDLED, headers=ADMIN))
        await until(loader.started.is_set)
        check_error(await client.post("/classify?model=birds", content=CLIP), 404, "model_not_found")
        assert (await client.post("/classify", content=CLIP)).status_code == 200
        changes = (await client.get("/models")).json()["changes"]
        assert changes == [{"name": "birds", "state": "loading", "error": ""}]
        loader.go.set()
        response = await put
        assert response.status_code == 201
        assert response.json()["name"] == "birds"
        assert (await client.get("/models")).json()["changes"] == []
        assert (await client.post("/classify?model=birds", content=CLIP)).json()["model"] == "birds"
        assert (await client.post("/classify", content=CLIP)).json()["model"] == "fake"
        assert [line for line in series(service, "birds") if line.startswith("hark_model_info")]


async def test_a_model_can_become_the_default(loader: Loader) -> None:
    async with admin() as (client, _):
        response = await client.put("/models/birds", json={**BUNDLED, "make_default": True}, headers=ADMIN)
        assert response.json()["default"]
        assert (await client.post("/classify", content=CLIP)).json()["model"] == "birds"
        response = await client.put("/models/other", json={"make_default": True}, headers=ADMIN)
        assert response.status_code == 200
        assert (await client.post("/classify", content=CLIP)).json()["model"] == "other"
        assert len(loader.loaded) == 1


async def test_replacing_finishes_what_the_old_one_accepted_then_closes_it(loader: Loader) -> None:
    async with admin() as (client, service):
        old = loader.watch(service.models["fake"])
        accepted = await accept_slowly(client, service, "fake")
        response = await client.put("/models/fake", json=BUNDLED, headers=ADMIN)
        assert response.status_code == 200
        assert service.models["fake"] is not old
        assert not accepted.done()
        assert loader.closed == []
        assert {"name": "fake", "state": "retiring", "error": ""} in (await client.get("/models")).json()["changes"]
        assert (await client.post("/classify", content=CLIP)).status_code == 200
        assert (await accepted).status_code == 200
        await until(lambda: loader.closed == ["fake"])
        await until(lambda: not service.pool.changes)
        assert (await client.get("/models")).json()["changes"] == []
        assert [line for line in series(service, "fake") if line.startswith("hark_windows_total")], "the name lives on"
    assert loader.closed == ["fake", "aum-tiny"], "the new one was closed at the end"


async def test_no_request_fails_while_a_model_is_replaced_again_and_again(loader: Loader) -> None:
    async with admin() as (client, _):
        stop = asyncio.Event()

        async def ask() -> list[int]:
            statuses = []
            while not stop.is_set():
                statuses.append((await client.post("/classify", content=CLIP)).status_code)
            return statuses

        askers = [asyncio.create_task(ask()) for _ in range(4)]
        for _ in range(5):
            assert (await client.put("/models/fake", json=BUNDLED, headers=ADMIN)).status_code == 200
        stop.set()
        statuses = [status for asker in askers for status in await asker]
        assert set(statuses) == {200}


async def test_a_replaced_model_says_so_and_answers(loader: Loader) -> None:
    async with admin() as (client, _):
        loader.go.clear()
        put = asyncio.create_task(client.put("/models/other", json=BUNDLED, headers=ADMIN))
        await until(loader.started.is_set)
        states = {model["name"]: model["state"] for model in (await client.get("/models")).json()["models"]}
        assert states == {"fake": "ready", "other": "replacing"}
        assert (await client.post("/classify?model=other", content=CLIP)).status_code == 200
        loader.go.set()
        assert (await put).json()["state"] == "ready"


async def test_a_deleted_model_does_not_wait_for_requests_of_others(loader: Loader) -> None:
    """A live stream of hours would have kept every model in memory that was deleted meanwhile."""
    async with admin() as (client, service):
        loader.watch(service.models["other"])
        accepted = await accept_slowly(client, service, "fake")
        assert (await client.delete("/models/other", headers=ADMIN)).status_code == 204
        await until(lambda: loader.closed == ["other"])
        assert not accepted.done()
        assert (await accepted).status_code == 200


@pytest.mark.parametrize("change", ["replace", "delete"])
async def test_an_upload_keeps_the_model_that_it_met_at_the_door(loader: Loader, change: str) -> None:
    """A model deleted while the body came answered 404 to a request that it had accepted."""
    async with admin() as (client, service):
        loader.watch(service.models["other"])
        half = asyncio.Event()

        async def body() -> Any:
            yield CLIP[:1000]
            await half.wait()
            yield CLIP[1000:]

        post = asyncio.create_task(client.post("/classify?model=other", content=body()))
        await asyncio.sleep(0.02)
        if change == "replace":
            assert (await client.put("/models/other", json=BUNDLED, headers=ADMIN)).status_code == 200
        else:
            assert (await client.delete("/models/other", headers=ADMIN)).status_code == 204
        assert loader.closed == []
        half.set()
        assert (await post).status_code == 200
        await until(lambda: loader.closed == ["other"])


@pytest.mark.parametrize(
    ("error", "status", "error_type", "said"),
    [
        (RuntimeDriftError("the golden clip is missed"), 422, "invalid_input", "the golden clip is missed"),
        (MemoryError("inside"), 500, "internal_error", ""),
    ],
)
async def test_a_failed_load_leaves_the_old_one(
    loader: Loader, error: Exception, status: int, error_type: str, said: str
) -> None:
    async with admin() as (client, service):
        old = service.models["fake"]
        loader.error = error
        response = await client.put("/models/fake", json={**BUNDLED, "make_default": True}, headers=ADMIN)
        sentence = check_error(response, status, error_type)
        assert said in sentence
        assert "inside" not in sentence
        assert service.models["fake"] is old
        assert (await client.post("/classify", content=CLIP)).status_code == 200
        [change] = (await client.get("/models")).json()["changes"]
        assert change["state"] == "failed"
        assert said in change["error"]
        loader.error = None
        assert (await client.put("/models/fake", json=BUNDLED, headers=ADMIN)).status_code == 200
        await until(lambda: not service.pool.changes)


async def test_only_the_newest_failures_are_kept(loader: Loader) -> None:
    """Every failed load stayed in /models for as long as the server ran, one for each name that was tried."""
    loader.error = RuntimeDriftError("it drifts")
    async with admin() as (client, service):
        for index in range(KEPT_FAILURES + 3):
            check_error(await client.put(f"/models/new{index}", json=BUNDLED, headers=ADMIN), 422, "invalid_input")
        names = [change.name for change in service.pool.changes]
        assert names == [f"new{index}" for index in range(3, KEPT_FAILURES + 3)]


async def test_a_load_that_ends_in_a_drain_is_given_back(loader: Loader) -> None:
    async with admin() as (client, service):
        loader.go.clear()
        put = asyncio.create_task(client.put("/models/birds", json=BUNDLED, headers=ADMIN))
        await until(loader.started.is_set)
        service.begin_drain()
        loader.go.set()
        check_error(await put, 503, "not_ready")
        assert len(loader.closed) == 1
        assert "birds" not in service.models
        check_error(await client.put("/models/birds", json=BUNDLED, headers=ADMIN), 503, "not_ready")
        check_error(await client.delete("/models/other", headers=ADMIN), 503, "not_ready")


@pytest.mark.parametrize(
    ("name", "body", "status", "error_type"),
    [
        ("new", b"", 422, "invalid_input"),
        ("new", b"[]", 422, "invalid_input"),
        ("new", b"{}", 404, "model_not_found"),
        ("fake", b"{}", 422, "invalid_input"),
        ("new", b'{"make_default": true}', 404, "model_not_found"),
        ("new", b'{"source": ""}', 422, "invalid_input"),
        ("new", b'{"source": 3}', 422, "invalid_input"),
        ("new", b'{"source": "' + b"x" * 1025 + b'"}', 422, "invalid_input"),
        ("new", b'{"source": "nope"}', 422, "invalid_input"),
        ("new", b'{"source": "/etc"}', 422, "invalid_input"),
        ("new", b'{"source": "aum-tiny", "path": "/"}', 422, "invalid_input"),
        ("-new", b'{"source": "aum-tiny"}', 422, "invalid_input"),
        ("n" * 65, b'{"source": "aum-tiny"}', 422, "invalid_input"),
        ("n%20w", b'{"source": "aum-tiny"}', 422, "invalid_input"),
        ("a/b", b'{"source": "aum-tiny"}', 405, "method_not_allowed"),
        ("new", b" " * 70_000, 413, "audio_too_large"),
    ],
)
async def test_wrong_requests(name: str, body: bytes, status: int, error_type: str) -> None:
    async with admin() as (client, service):
        check_error(await client.put(f"/models/{name}", content=body, headers=ADMIN), status, error_type)
        assert list(service.models) == ["fake", "other"]


# Deleting


async def test_a_deleted_model_answers_what_it_accepted_and_takes_its_metrics_along(loader: Loader) -> None:
    async with admin(traffic_split="fake=1,other=1") as (client, service):
        loader.watch(service.models["other"])
        accepted = await accept_slowly(client, service, "other")
        response = await client.delete("/models/other", headers=ADMIN)
        assert (response.status_code, response.content) == (204, b"")
        assert await names(client) == ["fake"]
        check_error(await client.post("/classify?model=other", content=CLIP), 404, "model_not_found")
        assert (await client.post("/classify", content=CLIP)).json()["model"] == "fake"
        check_error(await client.delete("/models/other", headers=ADMIN), 404, "model_not_found")
        assert (await accepted).status_code == 200
        await until(lambda: not service.pool.changes)
        assert loader.closed == ["other"]
        assert series(service, "other") == []
        assert series(service, "fake")


async def test_a_model_is_not_closed_under_a_batch_whose_caller_has_left(loader: Loader) -> None:
    """The request was over, but its window still on the device: the network vanished in the middle of a batch."""
    async with admin() as (client, service):
        loader.watch(service.models["other"])
        runtime, gate = fake_runtime(service, "other"), threading.Event()
        run = runtime.run
        runtime.run = lambda *batch: (gate.wait(10), run(*batch))[1]  # type: ignore[method-assign]
        late = await client.post("/classify?model=other&timeout_seconds=0.05", content=CLIP)
        check_error(late, 504, "timeout")
        assert (await client.delete("/models/other", headers=ADMIN)).status_code == 204
        await asyncio.sleep(0.1)
        assert loader.closed == []
        gate.set()
        await until(lambda: loader.closed == ["other"])


async def test_the_default_cannot_be_deleted_before_another_is_one(loader: Loader) -> None:
    async with admin() as (client, _):
        sentence = check_error(await client.delete("/models/fake", headers=ADMIN), 409, "conflict")
        assert "make another one the default" in sentence
        await client.put("/models/other", json={"make_default": True}, headers=ADMIN)
        assert (await client.delete("/models/fake", headers=ADMIN)).status_code == 204
        check_error(await client.delete("/models/other", headers=ADMIN), 409, "conflict")
        assert await names(client) == ["other"]


async def test_a_folder_below_the_root_is_served(tmp_path: Path) -> None:
    folder = tmp_path / "birds-v3"
    folder.mkdir()
    (folder / "config.json").write_text("{}")  # the fake runtime does not read it
    async with admin(model_root=tmp_path) as (client, _):
        assert (await client.put("/models/birds", json={"source": "birds-v3"}, headers=ADMIN)).status_code == 201
        assert (await client.post("/classify?model=birds", content=CLIP)).json()["model"] == "birds"
