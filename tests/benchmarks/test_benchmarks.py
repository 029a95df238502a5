"""The benchmark scripts run, and what they compare computes the same."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import soundfile
import torch

from model.backbones.aum_model import AuM, AuMConfig
from model.selective_scan import selective_scan
from tests.benchmarks import bench_gpu, bench_network, bench_runtimes, bench_scan, bench_teaching, bench_tokens
from tests.benchmarks.reference_scans import loop_scan, mamba_reference_scan


@pytest.mark.parametrize("scan", [loop_scan, mamba_reference_scan])
def test_other_scans_compute_the_same(scan):
    inputs = bench_scan.make_inputs(width=16, states=4, length=20)
    torch.testing.assert_close(scan(**inputs), selective_scan(**inputs, delta_softplus=True), atol=1e-5, rtol=1e-5)


def test_the_network_with_the_reference_scan_computes_the_same():
    network = AuM(AuMConfig(classes=3, mels=32, frames=64, width=32, depth=2)).eval()
    log_mel = torch.randn(1, 64, 32)
    with torch.inference_mode():
        runs = bench_network.candidates(network, log_mel)
        expected = runs["float32"]()
        torch.testing.assert_close(runs["float32, mamba_ssm's reference scan"](), expected, atol=1e-4, rtol=1e-4)
        assert runs["float32 products"]().shape == runs["bfloat16 products"]().shape == expected.shape


def test_bench_scan_runs(tmp_path, monkeypatch):
    out = tmp_path / "scan.json"
    sizes = ["--rounds", "1", "--length", "9", "--width", "16", "--states", "4", "--longest", "512"]
    monkeypatch.setattr(sys, "argv", ["bench_scan", *sizes, "--out", str(out)])
    bench_scan.main()
    assert out.exists()


def test_bench_network_runs(tmp_path, monkeypatch):
    out = tmp_path / "network.json"
    sizes = ["--size", "tiny", "--depth", "1", "--frames", "32", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["bench_network", *sizes, "--out", str(out)])
    bench_network.main()
    assert out.exists()


def test_bench_tokens_runs(tmp_path, monkeypatch):
    point = {"seconds": 1.0, "peak_bytes": 1.0}
    monkeypatch.setattr(bench_tokens, "measure_both", lambda *arguments: {"aum": point, "ast": point})
    monkeypatch.setattr(sys, "argv", ["bench_tokens", "--tokens", "8", "16", "--out", str(tmp_path)])
    bench_tokens.main()
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".png"}


@pytest.mark.parametrize("name", bench_tokens.NETWORKS)
def test_a_point_is_measured(name):
    point = bench_tokens.measure(bench_tokens.make_network(name, "tiny", 8), 8)
    assert point["seconds"] > 0
    assert point["peak_bytes"] >= 0


def test_bench_gpu_rehearses_and_goes_on_where_it_stopped(tmp_path, monkeypatch, capsys):
    out = tmp_path / "gpu.json"
    for sections in (["scan", "tokens"], ["scan", "networks", "features", "training"]):
        monkeypatch.setattr(sys, "argv", ["bench_gpu", "--rehearse", "--out", str(out), "--sections", *sections])
        monkeypatch.setattr(bench_gpu, "REHEARSAL", SMALLEST)
        bench_gpu.main()
    printed = capsys.readouterr().out
    assert printed.count("scan cpu") == 1, "the second run measured again what the file held"
    assert set(json.loads(out.read_text())) == set(bench_gpu.SECTIONS) - {"serving"}
    assert "64 tokens" in printed.splitlines()[-1]


SMALLEST = dataclasses.replace(bench_gpu.REHEARSAL, networks=(("aum", "tiny"), ("ast", "tiny")), batches=(1,))


def test_bench_gpu_refuses_a_machine_without_one(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_gpu", "--device", "cpu"])
    with pytest.raises(SystemExit):
        bench_gpu.main()
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.checkpoint
def test_bench_teaching_runs(tmp_path, monkeypatch, capsys):
    rows = ["file,mids,split_group,fold,esc50_class"]
    for place in range(10):
        label, pitch = ("low", 300) if place % 2 else ("high", 3000)
        waveform = 0.3 * np.sin(2 * np.pi * (pitch + place) * np.arange(32_000) / 16_000)
        soundfile.write(tmp_path / f"{place}.wav", waveform, 16_000)
        rows.append(f"{place}.wav,/m/1,{place},4,{label}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    monkeypatch.setattr(sys, "argv", ["bench_teaching", str(tmp_path / "manifest.csv"), "--clips", "3"])
    bench_teaching.main()
    assert "3 clips of 5 s | 1.00 " in capsys.readouterr().out


def test_bench_runtimes_times_and_compares(small_ast, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_runtimes, "cpu_candidates", lambda: [bench_runtimes.Candidate("torch", "float32")])
    monkeypatch.setattr(bench_runtimes, "transformers_model", lambda _: lambda: None)
    soundfile.write(tmp_path / "a.wav", small_ast.golden.waveform.numpy(), 16_000)
    (tmp_path / "clips.csv").write_text(f"file,mids,split_group\na.wav,{small_ast.labels.mids[0]},a\n")
    out = tmp_path / "out.json"
    given = ["--checkpoint", str(small_ast.folder), "--cache", str(tmp_path), "--rounds", "1", "--out", str(out)]
    monkeypatch.setattr(bench_runtimes, "COLD_STARTS", 2)
    monkeypatch.setattr(sys, "argv", ["bench_runtimes", *given, "--cold"])
    bench_runtimes.main()
    results = json.loads(out.read_text())
    assert "torch float32" in results["speed_by_reference"]
    assert len(results["cold_start_seconds"]["torch float32"]) == 2
    monkeypatch.setattr(sys, "argv", ["bench_runtimes", *given, "--manifest", str(tmp_path / "clips.csv")])
    bench_runtimes.main()
    assert json.loads(out.read_text())["accuracy"]["torch float32"]["max_abs_diff"] == 0.0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_bench_gpu_rehearses_serving(tmp_path, monkeypatch, capsys):
    arguments = ["bench_gpu", "--rehearse", "--device", "cpu", "--out", str(tmp_path / "gpu.json")]
    monkeypatch.setattr(sys, "argv", [*arguments, "--sections", "serving"])
    bench_gpu.main()
    points = json.loads((tmp_path / "gpu.json").read_text())["serving"]["capacity"]
    assert [(point["model"], point["failed"]) for point in points] == [("ast-random", 0), ("aum-tiny", 0)]
    assert capsys.readouterr().out.count("served ") == 4, "each model while it runs and in the table"
