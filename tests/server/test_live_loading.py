"""A real checkpoint: loaded from a folder while serving, embedded from, and equal to the offline pipeline."""

import asyncio
import gc
import io
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from model.checkpoint import load
from model.pipeline import tag
from model.registry import PRETRAINED
from tests.server.harness import check_error, encode, running, sine

pytestmark = [pytest.mark.anyio, pytest.mark.checkpoint, pytest.mark.timeout(60)]

ADMIN = {"X-API-Key": "root"}


async def test_a_folder_is_loaded_checked_and_answers_as_offline(tmp_path: Path) -> None:
    good, drifted = tmp_path / "good", tmp_path / "drifted"
    for folder in (good, drifted):
        shutil.copytree(PRETRAINED / "aum-tiny", folder)
    weights = bytearray((drifted / "model.safetensors").read_bytes())
    weights[-20_000:] = bytes(20_000)
    (drifted / "model.safetensors").write_bytes(weights)
    checkpoint = load(good)
    clip = encode(sine(2))
    expected = tag(clip, checkpoint, top_k=3)
    settings = {"runtime": "torch", "models": ["aum-tiny"], "device": "cpu", "admin_keys": ["root"]}
    async with running(**settings, model_root=tmp_path) as (client, service):
        refused = await client.put("/models/birds", json={"source": "drifted"}, headers=ADMIN)
        assert "golden" in check_error(refused, 422, "invalid_input")
        for status in (201, 200):
            response = await client.put("/models/birds", json={"source": "good"}, headers=ADMIN)
            assert response.status_code == status
            assert response.json()["weights_sha256"] == checkpoint.weights_sha256
            answer = (await client.post("/classify?model=birds&top_k=3", content=clip)).json()
            assert answer["model"] == "birds"
            assert [label["mid"] for label in answer["labels"]] == [label.mid for label in expected.labels]
            scores = [label["score"] for label in answer["labels"]]
            assert scores == pytest.approx([label.score for label in expected.labels], abs=1e-4)
        embedded = np.load(io.BytesIO((await client.post("/embed?model=birds&format=npy", content=clip)).content))
        network = weakref.ref(service.models["birds"].checkpoint.network)
        assert (await client.delete("/models/birds", headers=ADMIN)).status_code == 204
        async with asyncio.timeout(10):
            while service.pool.changes:
                await asyncio.sleep(0.01)
        gc.collect()
        assert network() is None, "the deleted model's weights are given back"
        assert (await client.post("/classify", content=clip)).json()["model"] == "aum-tiny"
        assert list(service.models) == ["aum-tiny"]
    assert embedded.shape[0] == len(expected.windows)
    with torch.inference_mode():
        logits = checkpoint.network.head(torch.from_numpy(embedded)).numpy()  # type: ignore[operator, union-attr]
    assert np.allclose(1 / (1 + np.exp(-logits)), expected.scores, atol=1e-4), (
        "the head turns embeddings into the scores"
    )
