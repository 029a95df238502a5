"""The default model and the traffic's split, by setting and as replies report them."""

from collections import Counter

import httpx
import pytest
from pydantic import ValidationError

from server.app import create_app
from server.settings import Settings
from server.traffic import TrafficSplit
from tests.server.harness import encode, running, sine

CLIP = encode(sine(0.2))


def test_shares_are_kept_and_ids_stick() -> None:
    split = TrafficSplit({"a": 90, "b": 10})
    chosen = {str(request): split.choose(str(request), ["a", "b"]) for request in range(4000)}
    counts = Counter(chosen.values())
    assert set(counts) == {"a", "b"}
    assert 0.08 < counts["b"] / 4000 < 0.12
    assert all(split.choose(request, ["a", "b", "c"]) == model for request, model in chosen.items())


def test_a_model_that_is_gone_leaves_its_share_to_the_others() -> None:
    split = TrafficSplit({"a": 1, "b": 1, "c": 2})
    assert {split.choose(str(request), ["b"]) for request in range(50)} == {"b"}
    assert split.choose("x", []) is None
    assert split.choose("x", ["d"]) is None
    assert split.shares_of(["a", "c"]) == pytest.approx({"a": 1 / 3, "c": 2 / 3})
    assert TrafficSplit().choose("x", ["a"]) is None


def test_settings_are_read_from_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARK_TRAFFIC_SPLIT", "a=90, b=10.5")
    assert Settings().traffic_split == {"a": 90, "b": 10.5}


@pytest.mark.parametrize("text", ["a", "a=", "=3", "a=x", "a=0", "a=-1", "a=inf", "a=nan", "a=1,a=2"])
def test_bad_splits_are_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="traffic_split"):
        Settings(traffic_split=text)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_an_empty_name_is_a_name() -> None:
    async with running() as (client, _):
        assert (await client.post("/classify?model=", content=CLIP)).status_code == 404


@pytest.mark.anyio
async def test_the_default_model_answers_who_names_none() -> None:
    async with running(default_model="other") as (client, _):
        for path in ("/classify", "/embed"):
            assert (await client.post(path, content=CLIP)).json()["model"] == "other"
        assert (await client.get("/labels")).json()["model"] == "other"
        assert (await client.get("/info")).json()["default_model"] == "other"
        models = (await client.get("/models")).json()["models"]
        assert [(model["name"], model["default"]) for model in models] == [("other", True), ("fake", False)]


@pytest.mark.anyio
async def test_the_split_answers_who_names_none() -> None:
    async with running(traffic_split="fake=50,other=50") as (client, _):

        async def answering(request_id: str, query: str = "") -> str:
            response = await client.post(f"/classify{query}", content=CLIP, headers={"X-Request-ID": request_id})
            return response.json()["model"]

        answers = {str(request): await answering(str(request)) for request in range(20)}
        assert set(answers.values()) == {"fake", "other"}
        for request_id, model in answers.items():
            assert await answering(request_id) == model
            assert await answering(request_id, "?model=other") == "other"
        shares = {model["name"]: model["traffic_share"] for model in (await client.get("/models")).json()["models"]}
        assert shares == {"fake": 0.5, "other": 0.5}


@pytest.mark.anyio
@pytest.mark.parametrize("values", [{"default_model": "nope"}, {"traffic_split": "fake=1,nope=2"}])
async def test_names_that_are_not_served_stop_the_start(values: dict[str, str]) -> None:
    app = create_app(Settings(runtime="fake", models=["fake"], **values))  # type: ignore[arg-type]
    async with app.router.lifespan_context(app):
        await app.state.service.wait_until_loaded()
        assert app.state.service.state == "failed"
        assert "'nope'" in app.state.service.failure
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://hark") as client:
            assert (await client.post("/classify", content=CLIP)).status_code == 503
