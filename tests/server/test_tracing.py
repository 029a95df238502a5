"""Spans reach an OTLP collector: a stand-in on a local port that reads what the exporter posts."""

import contextlib
import gzip
import http.server
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from server import process, tracing
from server.settings import Settings
from tests.server.harness import encode, fake_runtime, running, sine

collector_messages = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@contextlib.contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """The collector's address, and the spans that it has been sent."""
    spans: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                request = collector_messages.ExportTraceServiceRequest.FromString(body)
                for resource in request.resource_spans:
                    names = {item.key: item.value.string_value for item in resource.resource.attributes}
                    assert names["service.name"] == "hark"
                    spans.extend(span for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", spans
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.anyio
async def test_a_request_and_its_stages_are_spans() -> None:
    with collector() as (endpoint, spans):
        async with running(otlp_endpoint=endpoint) as (client, service):
            fake_runtime(service).batch_delay_seconds = 0.02
            headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "X-Request-ID": "seek-me"}
            answer = await client.post("/classify", content=encode(sine(15)), headers=headers)
            await client.post("/classify", content=b"no sound")
            await client.get("/livez")
    roots = {span.name: span for span in spans if span.name.startswith("POST ")}
    assert list(roots) == ["POST /classify"]
    [root] = [span for span in spans if span.trace_id.hex() == TRACE and span.parent_span_id.hex() == SPAN]
    assert answer.headers["traceparent"] == f"00-{TRACE}-{root.span_id.hex()}-01"
    attributes = {item.key: item.value.string_value or item.value.int_value for item in root.attributes}
    assert attributes["http.route"] == "/classify"
    assert attributes["http.response.status_code"] == 200
    assert attributes["hark.request_id"] == "seek-me"
    stages = [span for span in spans if span.parent_span_id == root.span_id]
    assert {span.name for span in stages} == {"decode", "queue", "features", "inference", "postprocess"}
    for span in stages:
        assert span.trace_id == root.trace_id
        assert root.start_time_unix_nano - 5_000_000 <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano + 5_000_000
    inference = [span for span in stages if span.name == "inference"]
    assert all(span.end_time_unix_nano - span.start_time_unix_nano >= 20_000_000 for span in inference)
    others = [span for span in spans if span.name.startswith("POST") and span.trace_id != root.trace_id]
    assert [not span.parent_span_id for span in others] == [True], "a new trace begins; probes have none"


@pytest.mark.anyio
async def test_a_callers_wish_not_to_record_is_kept() -> None:
    with collector() as (endpoint, spans):
        async with running(otlp_endpoint=endpoint) as (client, _):
            headers = {"traceparent": f"00-{TRACE}-{SPAN}-00"}
            answer = await client.post("/classify", content=encode(sine(1)), headers=headers)
    assert not spans
    assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert answer.headers["traceparent"].endswith("-00")


@pytest.mark.anyio
async def test_a_long_sounds_spans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MAX_STAGES", 10)
    with collector() as (endpoint, spans):
        async with running(otlp_endpoint=endpoint) as (client, _):
            await client.post("/classify?hop_seconds=0.5", content=encode(sine(30)))
    [root] = [span for span in spans if span.name == "POST /classify"]
    left_out = {item.key: item.value.int_value for item in root.attributes}["hark.stages_left_out"]
    assert len(spans) == 11
    assert left_out > 10


def test_missing_packages_are_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(tracing, "trace", None)
    monkeypatch.setattr(process, "configure_logging", lambda *_: None)
    assert tracing.open_tracing(None) is None
    assert process.serve(Settings(runtime="fake", otlp_endpoint="http://localhost:4318")) == 1
    assert "install hark with its extra 'otel'" in capsys.readouterr().err


def test_a_collector_that_is_down_is_said_once_a_minute() -> None:
    """The exporter wrote three lines every few seconds, for as long as the endpoint was down."""
    seldom, record = tracing.SeldomFilter(), logging.makeLogRecord({"msg": "cannot export"})
    assert [seldom.filter(record) for _ in range(3)] == [True, False, False]
