"""What is served has passed its golden clip, and answers exactly as the offline pipeline does."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs

from model import checkpoint
from model.checkpoint import Checkpoint, CheckpointConfig, file_sha256
from model.features import AUDIOSET_FBANK
from model.labels import LabelSet, audioset_labels
from model.pipeline import tag
from model.registry import build_network
from server import served_models, source
from server.app import create_app
from server.exports import cached_folder
from server.runtime_choice import SAFEST, Candidate, Measured, Memory
from server.runtimes.base import BatchResult
from server.runtimes.fake import FakeRuntime
from server.runtimes.onnx_runtime import OnnxRuntime
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


def with_golden_off_by(folder: Path, place: Path, difference: float) -> Path:
    """A copy of the checkpoint whose golden logits are wrong, as seen from a runtime that computes something else."""
    shutil.copytree(folder, place)
    golden = load_file(place / "golden.safetensors")
    save_file({**golden, "logits": golden["logits"] + difference}, place / "golden.safetensors")
    return place


@pytest.mark.parametrize("difference", [0.5, float("nan")])
def test_a_runtime_that_drifts_is_refused(folder: Path, tmp_path: Path, difference: float) -> None:
    wrong = with_golden_off_by(folder, tmp_path / "small-aum", difference)
    with pytest.raises(RuntimeDriftError):
        load_models(Settings(models=[str(wrong)], device="cpu"))


def test_a_precision_that_drifts_falls_back_to_float32(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(served_models.GOLDEN_TOLERANCE, "bfloat16", 0.0)
    model = load_models(Settings(models=[str(folder)], device="cpu", precision="bfloat16"))["small-aum"]
    assert model.info.precision == "float32"
    assert [(refusal.runtime, refusal.precision) for refusal in model.refused] == [("torch", "bfloat16")]


def test_reduced_precision_runs_within_its_tolerance(folder: Path) -> None:
    model = load_models(Settings(models=[str(folder)], device="cpu", precision="bfloat16"))["small-aum"]
    assert model.info.precision == "bfloat16"
    assert 0 < model.golden_max_abs_diff < 0.1


def test_warm_up_teaches_the_cost_model(folder: Path) -> None:
    model = load_models(Settings(models=[str(folder)], device="cpu"))["small-aum"]
    assert model.lane.cost.predict(1, 1) > 0
    assert (model.lane.batch_windows, model.lane.brief_windows) == (10, 5)


@pytest.mark.parametrize(("long_seconds", "calls"), [(0.0, 1), (1000.0, 2)])
def test_a_long_window_is_timed_once(monkeypatch: pytest.MonkeyPatch, long_seconds: float, calls: int) -> None:
    """AST-base ran its half a second twice before anybody was answered."""
    monkeypatch.setattr(served_models, "LONG_SECONDS", long_seconds)
    lane = load_models(Settings(models=["any"], device="cpu", runtime="fake"))["any"].lane
    assert isinstance(lane.runtime, FakeRuntime)
    assert len(lane.runtime.calls) == calls
    assert lane.cost.predict(1, 1) > 0


def test_a_scans_first_window_is_never_the_one_that_is_timed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads the scan's compiled code, which takes many times as long as the window."""
    alone: list[int] = []
    run = TorchRuntime.run

    def counted(runtime: TorchRuntime, waveforms: np.ndarray, lengths: np.ndarray, batches: int = 1) -> BatchResult:
        alone.append(batches)
        return run(runtime, waveforms, lengths, batches)

    monkeypatch.setattr(served_models, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(TorchRuntime, "run", counted)
    load_models(Settings(models=[str(folder)], device="cpu"))
    assert alone.count(1) == 2


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


def cached(checkpoint: Checkpoint, cache: Path, export: Path, target: str, precision: str) -> Path:
    """Puts an export where the server looks for it."""
    place = cached_folder(cache, checkpoint, target, precision, "cpu")
    shutil.copytree(export, place)
    return place


@pytest.mark.parametrize(("runtime", "precision"), [("onnx", "float32"), ("onnx", "int8"), ("openvino", "int8")])
def test_an_export_answers_as_the_checkpoint_does(
    small_ast: Checkpoint, export_of: Callable[[str, str], Path], tmp_path: Path, runtime: str, precision: str
) -> None:
    cached(small_ast, tmp_path, export_of(runtime, precision), runtime, precision)
    choice = {"runtime": runtime, "precision": precision, "runtime_folder": tmp_path, "device": "cpu"}
    model = load_models(Settings(models=[str(small_ast.folder)], **choice))["ast-random"]
    assert (model.info.runtime, model.info.precision, model.refused) == (runtime, precision, ())
    sounds = [noise(0.64), noise(0.3)]
    result = model.lane.run(sounds)
    with torch.inference_mode():
        for row, sound in enumerate(sounds):
            log_mel = small_ast.features(torch.from_numpy(sound[None]))
            embedding = small_ast.network.embed(log_mel)
            atol = 1e-4 if precision == "float32" else 5e-2
            np.testing.assert_allclose(result.logits[row], small_ast.network.head(embedding)[0], atol=atol)
            np.testing.assert_allclose(result.embeddings[row], embedding[0], atol=4 * atol)


@pytest.mark.anyio
async def test_a_poisoned_export_is_refused_and_the_next_safe_runtime_serves(
    small_ast: Checkpoint, export_of: Callable[[str, str], Path], tmp_path: Path
) -> None:
    place = cached(small_ast, tmp_path, export_of("onnx", "float32"), "onnx", "float32")
    model = onnx.load(place / "model.onnx")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("head.1.bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.5), bias.name))
    whole = file_sha256(place / "model.onnx")
    onnx.save(model, place / "model.onnx")
    about = (place / "export.json").read_text()  # as if it had been exported so; a changed file would be made anew
    (place / "export.json").write_text(about.replace(whole, file_sha256(place / "model.onnx")))
    settings = Settings(
        models=[str(small_ast.folder)], runtime="onnx", precision="float32", runtime_folder=tmp_path, device="cpu"
    )
    async with started(create_app(settings)) as client:
        info = (await client.get("/info")).json()
        metrics = (await client.get("/metrics")).text
        answer = (await client.post("/classify", content=encode(noise(0.6)))).json()
    assert info["models"]["ast-random"]["runtime"] == "torch"
    (refused,) = info["refused_runtimes"]["ast-random"]
    assert (refused["runtime"], refused["precision"]) == ("onnx", "float32")
    assert "golden logits are off by 0.5" in refused["reason"]
    assert 'hark_runtime_refused_total{model="ast-random",runtime="onnx"} 1.0' in metrics
    assert answer["provenance"]["runtime"] == "torch"


def test_auto_measures_once_takes_the_fastest_and_remembers(
    small_ast: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, export_of: Callable[[str, str], Path]
) -> None:
    fast, slow, drifting = (Candidate("onnx", p) for p in ("float32", "int8", "float16"))
    seconds = {fast: 0.1, slow: 0.2, drifting: None, SAFEST: 0.3}
    asked: list[Candidate] = []

    def measured(source: object, wished: list[Candidate], settings: Settings) -> list[Measured]:
        asked.extend(wished)
        results = [Measured(c.runtime, c.precision, seconds[c], "" if seconds[c] else "drifts") for c in wished]
        Memory(tmp_path, small_ast.weights_sha256, "cpu").write(results)
        return results

    monkeypatch.setattr(served_models, "measure_runtimes", measured)
    monkeypatch.setattr(served_models, "candidates", lambda *_: [slow, drifting, fast, SAFEST])
    cached(small_ast, tmp_path, export_of("onnx", "float32"), "onnx", "float32")
    for _ in range(2):
        settings = Settings(models=[str(small_ast.folder)], runtime_folder=tmp_path, device="cpu")
        model = load_models(settings)["ast-random"]
        assert (model.info.runtime, model.info.precision) == ("onnx", "float32")
        assert [refusal.reason for refusal in model.refused] == ["drifts"]
    assert len(asked) == 4  # once


def test_measuring_times_what_it_can_start_and_keeps_the_times(small_ast: Checkpoint, tmp_path: Path) -> None:
    settings = Settings(runtime_folder=tmp_path, device="cpu", runtime_measure_seconds=1000)
    place = source.Source(str(small_ast.folder), tmp_path, checkpoint.load)
    wished = [Candidate("tensorrt", "bfloat16"), SAFEST]
    refused, result = served_models.measure_runtimes(place, wished, settings)
    assert "needs an NVIDIA GPU" in refused.refused
    assert result.candidate == SAFEST
    assert (result.seconds or 0) > 0
    assert Memory(tmp_path, small_ast.weights_sha256, "cpu").read() == [result]


@pytest.fixture
def one_export(small_ast: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> str:
    """A checkpoint that `auto` may serve in ONNX Runtime or in torch, both in float32."""
    monkeypatch.setattr(served_models, "candidates", lambda *_: [Candidate("onnx", "float32"), SAFEST])
    return str(small_ast.folder)


@pytest.mark.parametrize(("torch_seconds", "served"), [(1000.0, "onnx"), (0.0, "torch")])
def test_a_start_measures_what_an_earlier_one_could_not(
    one_export: str,
    small_ast: Checkpoint,
    export_of: Callable[[str, str], Path],
    tmp_path: Path,
    torch_seconds: float,
    served: str,
) -> None:
    """What a full disk kept from being measured once was never measured again."""
    Memory(tmp_path, small_ast.weights_sha256, "cpu").write([Measured("torch", "float32", torch_seconds)])
    cached(small_ast, tmp_path, export_of("onnx", "float32"), "onnx", "float32")
    model = load_models(Settings(models=[one_export], runtime_folder=tmp_path, device="cpu"))["ast-random"]
    assert model.info.runtime == served
    assert len(Memory(tmp_path, small_ast.weights_sha256, "cpu").read()) == 2


def test_a_runtime_asked_for_by_name_serves_though_torch_was_faster(
    small_ast: Checkpoint, export_of: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wished = [Candidate("onnx", "float16"), Candidate("onnx", "float32"), SAFEST]
    monkeypatch.setattr(served_models, "candidates", lambda *_: wished)
    cached(small_ast, tmp_path, export_of("onnx", "float32"), "onnx", "float32")
    seconds = [None, 0.2, 0.1]
    results = [Measured(c.runtime, c.precision, s) for c, s in zip(wished, seconds, strict=True)]
    Memory(tmp_path, small_ast.weights_sha256, "cpu").write(results)
    settings = Settings(models=[str(small_ast.folder)], runtime="onnx", runtime_folder=tmp_path, device="cpu")
    assert load_models(settings)["ast-random"].info.runtime == "onnx"


def test_what_is_refused_while_it_is_measured_is_shown(one_export: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    model = load_models(Settings(models=[one_export], runtime_folder=tmp_path / "file", device="cpu"))["ast-random"]
    assert model.info.runtime == "torch"
    assert [(refusal.runtime, refusal.precision) for refusal in model.refused] == [("onnx", "float32")]
    assert "no export can be kept" in model.refused[0].reason


@pytest.mark.parametrize(("method", "call"), [("__init__", 1), ("_infer", 1), ("_infer", 2)])
def test_an_export_that_fails_as_it_starts_gives_way(
    small_ast: Checkpoint,
    export_of: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    call: int,
) -> None:
    """A graph with another input shape, or no memory left, ended the server while it was opened, checked or warmed."""
    works, calls = getattr(OnnxRuntime, method), []

    def fail(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == call:
            raise ZeroDivisionError("a bug, say")
        return works(*arguments)

    monkeypatch.setattr(OnnxRuntime, method, fail)
    monkeypatch.setattr(served_models, "LONG_SECONDS", 1000.0)  # so that warming up runs once more
    cached(small_ast, tmp_path, export_of("onnx", "int8"), "onnx", "int8")
    settings = Settings(
        models=[str(small_ast.folder)], runtime="onnx", precision="int8", runtime_folder=tmp_path, device="cpu"
    )
    with capture_logs() as logs:
        model = load_models(settings)["ast-random"]
    assert model.info.runtime == "torch"
    assert [refusal.reason for refusal in model.refused] == [
        "it failed with ZeroDivisionError; the log has the traceback"
    ]
    assert [str(line["exc_info"]) for line in logs if line["event"] == "runtime failed"] == ["a bug, say"]


def test_the_last_resort_raises_what_it_raises(small_ast: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(TorchRuntime, "run", fail)
    with pytest.raises(ZeroDivisionError):
        load_models(Settings(models=[str(small_ast.folder)], device="cpu", runtime="torch"))


def test_an_exports_folder_is_served_without_the_checkpoint(export_of: Callable[[str, str], Path]) -> None:
    model = load_models(Settings(models=[str(export_of("onnx", "int8"))], device="cpu"))["ast-random"]
    assert (model.info.runtime, model.info.precision) == ("onnx", "int8")


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({"runtime": "tensorrt"}, "needs an NVIDIA GPU"),
        ({"runtime": "torch", "precision": "int8"}, "no int8"),
    ],
)
def test_what_cannot_run_here_gives_way_to_torch(small_ast: Checkpoint, choice: dict[str, str], reason: str) -> None:
    model = load_models(Settings(models=[str(small_ast.folder)], device="cpu", **choice))["ast-random"]
    assert (model.info.runtime, model.info.precision) == ("torch", "float32")
    assert reason in model.refused[0].reason


def test_a_mamba_asked_of_onnx_is_served_by_torch_and_says_why(folder: Path) -> None:
    model = load_models(Settings(models=[str(folder)], device="cpu", runtime="onnx"))["small-aum"]
    assert model.info.runtime == "torch"
    assert "selective scan is native" in model.refused[0].reason


@pytest.mark.parametrize("devices", ["cpu,cpu", "cpu, cpu"])
def test_one_device_named_twice_is_refused(folder: Path, devices: str) -> None:
    with pytest.raises(UnusableDeviceError, match="twice"):
        load_models(Settings(models=[str(folder)], device=devices))
