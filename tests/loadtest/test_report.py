"""Requests to numbers, numbers to a table and a plot."""

import json
from pathlib import Path

import pytest

from loadtest.report import parse_server_timing, plot_latencies, read_run, summarise, table


def request(due: float, latency: float, status: int = 200, timing: str = "queue;dur=2, inference;dur=30") -> dict:
    return {
        "due_seconds": due,
        "latency_seconds": latency,
        "status": status,
        "audio_seconds": 10.0,
        "server_timing": timing,
    }


REQUESTS = [request(due, (due + 1) / 100) for due in range(99)] + [request(99, 1.0, 503, ""), request(99, 1.0, 0, "")]


def test_a_run_lasts_from_the_first_due_moment_to_the_last_answer():
    run = summarise("run", REQUESTS)
    assert run.seconds == pytest.approx(100)
    assert run.answered_per_second == pytest.approx(0.99)
    assert run.audio_speed == pytest.approx(9.9)
    assert (run.requests, run.refused, run.failed) == (101, 1, 1)


def test_percentiles_count_answered_requests_only():
    run = summarise("run", REQUESTS)
    assert [run.latency_ms(share) for share in (0.5, 0.95, 0.99)] == pytest.approx([500, 950, 990])
    assert (run.queue_ms, run.inference_ms) == (2, 30)


def test_a_run_without_answers_still_gives_a_row():
    assert "nan" in table([summarise("dead", [request(0, 1, 500, "")])])
    assert summarise("empty", []).answered_per_second == 0


@pytest.mark.parametrize(
    ("header", "stages"),
    [
        ("decode;dur=1.9, queue;dur=0.8", {"decode": 1.9, "queue": 0.8}),
        ("", {}),
        ("cache;desc=hit, total;dur=x, queue;dur=1", {"queue": 1.0}),
    ],
)
def test_server_timing(header: str, stages: dict[str, float]):
    assert parse_server_timing(header) == stages


def test_table_and_plot_of_files(tmp_path: Path):
    path = tmp_path / "tiny idle.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in REQUESTS))
    run = read_run(path)
    lines = table([run, run]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2].startswith("| tiny idle | 101 ")
    plot_latencies([run], tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000
