"""A checkpoint's stored thresholds decide what the server calls an event, and are told by `GET /labels`."""

from pathlib import Path

import numpy as np
import pytest

from model.training.thresholds import store_thresholds
from tests.model.training.judged import DOG, save_checkpoint
from tests.server.harness import encode, running

pytestmark = pytest.mark.anyio
NOISE = encode(np.random.default_rng(0).uniform(-0.5, 0.5, 16000).astype(np.float32))


@pytest.mark.parametrize(("threshold", "heard"), [(0.0001, True), (1.0, False)])
async def test_events_begin_at_the_stored_threshold(tmp_path: Path, threshold: float, heard: bool) -> None:
    folder = save_checkpoint(tmp_path / "tiny")
    store_thresholds(folder, {DOG: threshold}, "by hand")
    async with running(models=[str(folder)], runtime="torch") as (client, _):
        rows = (await client.get("/labels")).json()["labels"]
        answer = (await client.post("/classify", content=NOISE)).json()
    assert [row["threshold"] for row in rows] == [threshold, 0.5, 0.5]
    assert (DOG in [event["mid"] for event in answer["events"]]) == heard
    assert DOG in [label["mid"] for label in answer["labels"]]
