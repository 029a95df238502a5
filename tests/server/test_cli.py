"""The `hark` command: what it prints, and exit codes 0, 1 and 2."""

import csv
import io
import json
import shlex
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

from server import cli, console
from tests.server.live import live_server


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Seven seconds of seeded noise."""
    path = tmp_path / "noise, loud.wav"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 7 * 16000), 16000)
    return path


def test_without_arguments_it_explains_itself(capsys: pytest.CaptureFixture[str]):
    assert cli.run([]) == 0
    assert {"serve", "classify", "models", "bench"} <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["sing"],
        ["classify"],
        ["classify", "a.wav", "--format", "mp3"],
        ["classify", "a.wav", "--top-k", "0"],
        ["classify", "a.wav", "--threshold", "1.5"],
        ["classify", "a.wav", "--model", "no-such-model"],
        ["classify", "a.wav", "--window", "-1"],
        ["classify", "a.wav", "--window", "nan"],
        ["classify", "a.wav", "--hop", "1000"],
        ["classify", "a.wav", "b.wav", "--format", "audacity"],
        ["bench", "--model", "no-such-model"],
        ["serve", "--port", "65536"],
        ["serve", "--device", "cpu", "extra"],
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    assert cli.run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("hark: ")
    assert printed.err.count("\n") == 1


def test_a_wrong_setting_in_the_environment_is_named_but_never_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HARK_PORT", "secret")
    assert cli.run(["serve"]) == 2
    sentence = capsys.readouterr().err
    assert "port" in sentence
    assert "secret" not in sentence


def test_an_unknown_variable_stops_the_start_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """HARK_PROT=1 was accepted without a word, although the documentation said otherwise."""
    monkeypatch.setenv("HARK_PROT", "1")
    assert cli.run(["serve"]) == 2
    sentence = capsys.readouterr().err
    assert "HARK_PROT" in sentence
    assert sentence.count("\n") == 1


@pytest.mark.parametrize("to", [">/dev/full", ">&-"])
@pytest.mark.parametrize("command", ["models", "models --json", "classify server/page/samples/dog.ogg"])
def test_a_result_that_cannot_be_written_is_one_line_and_exit_code_1(command: str, to: str):
    """A full disk and a closed stdout gave tracebacks."""
    shell = f"{shlex.quote(sys.executable)} -m server.cli {command} {to}"
    ended = subprocess.run(shell, shell=True, stderr=subprocess.PIPE, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith("hark: the result cannot be written: ")
    assert ended.stderr.count("\n") == 1


def test_json_tells_everything(clip: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["classify", str(clip), "--format", "json", "--top-k", "3"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["source"], answer["duration_seconds"]) == (str(clip), 7.0)
    assert len(answer["labels"]) == 3
    assert answer["windows"][0]["start_seconds"] == 0


def test_json_of_several_files_is_an_array_even_where_only_one_is_left(clip: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["classify", str(clip), "missing.wav", "--format", "json"]) == 1
    assert [answer["source"] for answer in json.loads(capsys.readouterr().out)] == [str(clip)]


def test_a_table_shows_the_labels_with_their_mids(clip: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["classify", str(clip), "--top-k", "2"]) == 0
    table = capsys.readouterr().out
    assert "noise, loud.wav" in table
    assert table.count("/m/") + table.count("/t/") == 2


def test_window_and_hop_set_the_grid(clip: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.run(["classify", str(clip), "--format", "json", "--window", "2", "--hop", "1"]) == 0
    windows = json.loads(capsys.readouterr().out)["windows"]
    assert [window["start_seconds"] for window in windows] == [0, 1, 2, 3, 4, 5]


def test_channels_are_tagged_one_by_one_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    stereo = np.random.default_rng(0).uniform(-0.5, 0.5, (16000, 2)) * [1.0, 0.05]
    soundfile.write(tmp_path / "stereo.wav", stereo, 16000)
    split = ["classify", str(tmp_path / "stereo.wav"), "--channels", "split", "--top-k", "2"]
    assert cli.run([*split, "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [window["channel"] for window in answer["windows"]] == [0, 1]
    assert [len(tags["labels"]) for tags in answer["channels"]] == [2, 2]
    assert cli.run(split) == 0
    table = capsys.readouterr().out
    assert "label in channel 0" in table
    assert "label in channel 1" in table


@pytest.mark.parametrize("there", [True, False])
def test_standard_input_is_a_file_too(clip: Path, capsys: pytest.CaptureFixture[str], there: bool):
    """A pipe cannot seek, as decoders must; what comes from it is kept aside."""
    command = [sys.executable, "-m", "server.cli", "classify", "-", "--format", "json", "--top-k", "1"]
    piped = subprocess.run(command, input=clip.read_bytes() if there else b"", capture_output=True)
    if not there:
        assert piped.returncode == 1
        assert piped.stderr.decode().startswith("hark: -: the audio is empty")
        return
    assert piped.returncode == 0, piped.stderr
    assert cli.run(["classify", str(clip), "--format", "json", "--top-k", "1"]) == 0
    expected = json.loads(capsys.readouterr().out)
    answer = json.loads(piped.stdout)
    assert answer["source"] == "-"
    assert [window["labels"][0]["mid"] for window in answer["windows"]] == [
        window["labels"][0]["mid"] for window in expected["windows"]
    ]


def test_a_closed_standard_input_is_said_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "stdin", None)
    assert cli.run(["classify", "-"]) == 1
    assert "no standard input" in capsys.readouterr().err


def test_files_that_cannot_be_tagged_are_named_and_the_others_still_tagged(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    text = tmp_path / "text.wav"
    text.write_text("no sound")
    missing = tmp_path / "missing.wav"
    assert cli.run(["classify", str(text), str(missing), str(tmp_path), str(clip), "--format", "csv"]) == 1
    printed = capsys.readouterr()
    assert [line.split(": ")[1] for line in printed.err.splitlines()] == [str(text), str(missing), str(tmp_path)]
    assert {row["source"] for row in csv.DictReader(io.StringIO(printed.out))} == {str(clip)}


def test_a_broken_checkpoint_is_a_failure_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "config.json").write_text("{}")
    assert cli.run(["classify", "a.wav", "--model", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_models_lists_the_default_first(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["model"] == "aum-tiny"
    assert rows[0]["labels"] > 50
    assert cli.run(["models"]) == 0
    assert "aum-tiny" in capsys.readouterr().out


def test_models_lists_what_can_be_pulled(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["models", "--published", "--json"]) == 0
    assert {"model", "backbone", "licence", "about"} == set(json.loads(capsys.readouterr().out)[0])


def test_a_broken_pulled_model_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    broken = tmp_path / "models" / "half-there"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{}")
    monkeypatch.setenv("HARK_CACHE", str(tmp_path))
    assert cli.run(["models"]) == 1
    assert "half-there" in capsys.readouterr().err


def test_export_runs_in_a_process_of_its_own_and_gives_its_exit_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert cli.run(["export", "aum-tiny", str(tmp_path / "out")]) == 1
    assert "selective scan" in capfd.readouterr().err


def test_bench_prints_a_row_per_model(capsys: pytest.CaptureFixture[str]):
    assert cli.run(["bench", "--model", "aum-tiny", "--repeats", "1"]) == 0
    assert "aum-tiny" in capsys.readouterr().out


def test_serve_prints_its_address_and_ends_well_on_sigterm():
    with live_server() as live:
        assert urllib.request.urlopen(f"{live.url}/readyz").status == 200
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(timeout=20) == 0


def test_serve_says_in_one_line_that_the_port_is_taken(capsys: pytest.CaptureFixture[str]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.run(["serve", "--port", str(port)]) == 1
    sentence = capsys.readouterr().err
    assert str(port) in sentence
    assert sentence.count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00.0"), (59.96, "1:00.0"), (75.25, "1:15.2"), (3599.99, "1:00:00.0"), (3725.5, "1:02:05.5")],
)
def test_clock(seconds: float, shown: str):
    assert console.clock(seconds) == shown
