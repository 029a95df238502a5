"""The serving benchmark runs, and its numbers mean what they say."""

import asyncio
import json
import sys
from collections import Counter
from contextlib import closing

import pytest

from model.checkpoint import load
from tests.benchmarks import bench_serving, bench_serving_client
from tests.benchmarks.bench_serving_bars import Finding, Sizes, answered_share, drain, make_ast, with_sizes
from tests.benchmarks.bench_serving_client import Reply, open_loop, quantile, rate_of


def test_bars_are_named_alone_and_a_missed_limit_is_the_exit_code(tmp_path, monkeypatch, capsys):
    def bar(value):
        return lambda sizes: [Finding("bar", "what", value, sizes.clients)]

    monkeypatch.setattr(bench_serving, "BARS", {"good": bar(3), "bad": bar(5), "not_run": None})
    for names, code in ((["good"], 0), (["good", "bad"], 1)):
        out = tmp_path / "serving.json"
        monkeypatch.setattr(sys, "argv", ["bench_serving", *names, "--clients", "4", "--out", str(out)])
        assert bench_serving.main() == code
        assert len(json.loads(out.read_text())["findings"]) == len(names)
    assert "| NO " in capsys.readouterr().out


def test_an_unknown_bar_is_bad_usage(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench_serving", "speed"])
    with pytest.raises(SystemExit):
        bench_serving.main()
    assert "there are: latency, throughput" in capsys.readouterr().err


def test_sizes():
    assert with_sizes(quick=False, clients=None) == Sizes()
    assert with_sizes(quick=True, clients=3).clients == 3


def test_a_gap_in_the_timeline_is_seen():
    def reply(*spans):
        windows = [{"start_seconds": start, "end_seconds": end} for start, end in spans]
        return Reply(200, 0.0, 1.0, json.dumps({"windows": windows}).encode())

    assert answered_share(reply((0, 5), (5, 10), (7, 12)), 12) == 1
    assert answered_share(reply((0, 5), (6, 12)), 12) == 5 / 12
    with pytest.raises(AssertionError):
        answered_share(Reply(503, 0.0, 1.0), 12)


def test_rates_and_quantiles():
    replies = [Reply(200, 0.0, 1.0), Reply(200, 1.5, 1.0), Reply(503, 0.5, 0.1), Reply(200, 0.0, 9.0)]
    assert rate_of(replies, 0.0, 4.0) == 0.5
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([float(i) for i in range(101)], 0.99) == 99.0


async def open_loop_meets(serve):
    """What becomes of some requests to a server with such connections."""

    async def serve_and_close(reader, writer):
        with closing(writer):
            await serve(reader, writer)

    server = await asyncio.start_server(serve_and_close, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    replies = await asyncio.to_thread(open_loop, f"http://127.0.0.1:{port}", 100, 0.3, b"sound", "")
    server.close()
    return {reply.status for reply in replies}


def test_the_open_loop_leaves_a_connection_that_the_server_is_about_to_close():
    """It sent its next request there, and counted the server's closing as a broken connection."""
    asked = []

    async def last_answer(reader, writer):
        while await reader.read(2**16):
            asked.append(writer)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    assert asyncio.run(open_loop_meets(last_answer)) == {200}
    assert set(Counter(asked).values()) == {1}


def test_the_open_loop_does_not_wait_for_ever(monkeypatch):
    """One request without an answer, or a connection closed before it was used, and the benchmark never ended."""
    monkeypatch.setattr(bench_serving_client, "PATIENCE_SECONDS", 0.2)

    async def silence(reader, writer):
        await reader.read()

    async def at_once(reader, writer):
        pass

    assert asyncio.run(open_loop_meets(silence)) == {0}
    assert asyncio.run(open_loop_meets(at_once)) == {0}


def test_the_random_network_is_served_like_any_other(tmp_path):
    loaded = load(make_ast(tmp_path / "ast-random", depth=1))
    assert loaded.config.window_seconds == 10
    assert loaded.network.config.width == 768


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_bar_is_measured_on_a_live_server():
    findings = drain(Sizes(clients=2, seconds=2))
    assert [finding.what for finding in findings] == ["accepted requests lost", "exit code"]
    assert all(finding.passed for finding in findings)
