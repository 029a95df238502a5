"""What is served has passed its golden clip, and answers exactly as the offline pipeline does."""

from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from model import checkpoint
from model.checkpoint import Checkpoint, CheckpointConfig, Golden
from model.features import AUDIOSET_FBANK
from model.labels import LabelSet, audioset_labels
from model.pipeline import tag
from model.registry import build_network
from server import served_models
from server.app import create_app
from server.runtimes.torch_runtime import TorchRuntime
from server.served_models import (
    ModelSettingsError,
    RuntimeDriftError,
    UnusableDeviceError,
    choose_device,
    load_models,
)
from server.settings import Settings
from tests.server.harness import RATE, encode, sine, started


def small_config(name: str, backbone: str) -> CheckpointConfig:
    sizes = {"classes": 5, "frames": 200, "width": 32, "depth": 2}
    features = replace(AUDIOSET_FBANK, frames=200)
    return CheckpointConfig(name, backbone, sizes, features, window_seconds=2.0, hop_seconds=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small AuM with random weights, saved as a checkpoint."""
    torch.manual_seed(0)
    config = small_config("small-aum", "aum")
    network = build_network(config.backbone, config.backbone_config)
    labels = LabelSet.from_mids(audioset_labels().mids[:5])
    place = tmp_path_factory.mktemp("models") / "small-aum"
    golden = torch.from_numpy(noise(2.0, seed=9))
    checkpoint.save(place, config, network.state_dict(), labels, golden, "A small random model.\n")
    return place


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE)).astype(np.float32)


def test_the_runtime_equals_the_offline_network_alone_and_in_a_batch(folder: Path) -> None:
    loaded = checkpoint.load(folder)
    runtime = TorchRuntime(loaded, "cpu")
    waveforms = np.stack([noise(2.0, seed) for seed in range(3)])
    lengths = np.array([32_000, 32_000, 9_000], np.int64)
    waveforms[2, 9_000:] = 0
    together = runtime.run(waveforms, lengths)
    assert together.features_seconds > 0
    assert together.inference_seconds > 0
    for row in range(3):
        alone = runtime.run(waveforms[row : row + 1], lengths[row : row + 1]).logits[0]
        np.testing.assert_allclose(together.logits[row], alone, atol=1e-4)
        with torch.inference_mode():
            offline = loaded.network(loaded.features(torch.from_numpy(waveforms[row : row + 1, : lengths[row]])))
        np.testing.assert_allclose(alone, offline[0].numpy(), atol=1e-4)
    assert runtime.info.scan == "numba"


@pytest.mark.anyio
@pytest.mark.parametrize("seconds", [0.3, 2.0, 7.7])
async def test_the_server_equals_the_pipeline(folder: Path, seconds: float) -> None:
    clip = encode(noise(seconds))
    offline = tag(clip, checkpoint.load(folder), top_k=5)
    app = create_app(Settings(models=[str(folder)], device="cpu"))
    async with started(app) as client:
        answer = (await client.post("/classify", content=clip)).json()
        models = (await client.get("/models")).json()["models"]
    assert answer["duration_seconds"] == offline.duration_seconds
    assert [label["mid"] for label in answer["labels"]] == [label.mid for label in offline.labels]
    for got, wanted in zip(answer["windows"], offline.windows, strict=True):
        assert (got["start_seconds"], got["end_seconds"]) == (wanted.start_seconds, wanted.end_seconds)
        scores = {label["mid"]: label["score"] for label in got["labels"]}
        for label in wanted.labels:
            assert scores[label.mid] == pytest.approx(label.score, abs=1e-4)
    assert answer["provenance"]["scan"] == models[0]["scan"] == "numba"
    assert models[0]["golden_max_abs_diff"] < 1e-4


def with_golden_off_by(loaded: Checkpoint, difference: float) -> Checkpoint:
    return replace(loaded, golden=Golden(loaded.golden.waveform, loaded.golden.logits + difference))


@pytest.mark.parametrize("difference", [0.5, float("nan")])
def test_a_runtime_that_drifts_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, difference: float) -> None:
    wrong = with_golden_off_by(checkpoint.load(folder), difference)
    monkeypatch.setattr(served_models, "load", lambda *_: wrong)
    with pytest.raises(RuntimeDriftError):
        load_models(Settings(models=[str(folder)], device="cpu"))


def test_a_precision_that_drifts_falls_back_to_float32(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(served_models.GOLDEN_TOLERANCE, "bfloat16", 0.0)
    model = load_models(Settings(models=[str(folder)], device="cpu", precision="bfloat16"))["small-aum"]
    assert model.info.precision == "float32"


def test_reduced_precision_runs_within_its_tolerance(folder: Path) -> None:
    model = load_models(Settings(models=[str(folder)], device="cpu", precision="bfloat16"))["small-aum"]
    assert model.info.precision == "bfloat16"
    assert 0 < model.golden_max_abs_diff < 0.1


def test_warm_up_teaches_the_cost_model(folder: Path) -> None:
    model = load_models(Settings(models=[str(folder)], device="cpu"))["small-aum"]
    assert model.lane.cost.predict(1, 1) > 0
    assert model.lane.batch_windows == 5


@pytest.mark.parametrize(("device", "gpus"), [("zzz", 1), ("cuda:x", 1), ("mps", 1), ("cuda", 0), ("cuda:1", 1)])
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, device: str, gpus: int) -> None:
    """A wrong device was found out by torch, in its words and with a traceback."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UnusableDeviceError, match=device):
        choose_device(device)
    assert choose_device("auto") == ("cuda" if gpus else "cpu")


def test_settings_that_cannot_serve_a_model_are_refused(folder: Path) -> None:
    with pytest.raises(ModelSettingsError, match="two models"):
        load_models(Settings(models=[str(folder), str(folder)], device="cpu"))
    with pytest.raises(ModelSettingsError, match="max_queue_audio_seconds"):
        load_models(Settings(models=[str(folder)], device="cpu", max_queue_audio_seconds=1))


@pytest.mark.anyio
async def test_two_models_side_by_side(folder: Path) -> None:
    app = create_app(Settings(models=[str(folder), "aum-tiny"], device="cpu"))
    async with started(app) as client:
        clip = encode(sine(1))
        answers: list[httpx.Response] = [
            await client.post("/classify", params={"model": name}, content=clip) for name in ("small-aum", "aum-tiny")
        ]
    assert [answer.json()["model"] for answer in answers] == ["small-aum", "aum-tiny"]
