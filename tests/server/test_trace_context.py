"""`traceparent` is read as strictly as the W3C recommendation asks, answered, and stands in the log lines."""

import re

import httpx
import pytest
import structlog

from server.trace_context import TraceContext, parse_traceparent
from tests.server.harness import check_error, encode, sine

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def parsed(*values: str) -> TraceContext | None:
    return parse_traceparent([(b"host", b"hark"), *((b"traceparent", value.encode("latin-1")) for value in values)])


def test_a_header_is_read() -> None:
    assert parsed(GOOD) == TraceContext(TRACE, SPAN, True)
    assert parsed(f"00-{TRACE}-{SPAN}-00") == TraceContext(TRACE, SPAN, False)
    assert parsed(f"00-{TRACE}-{SPAN}-fe") == TraceContext(TRACE, SPAN, False)


def test_of_a_later_version_the_known_part_is_read() -> None:
    assert parsed(f"cc-{TRACE}-{SPAN}-01") == TraceContext(TRACE, SPAN, True)
    assert parsed(f"cc-{TRACE}-{SPAN}-01-what.the.future-holds") == TraceContext(TRACE, SPAN, True)


@pytest.mark.parametrize(
    "value",
    [
        "",
        TRACE,
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01 ",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"0-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"{GOOD}\n",
        "é" * 55,
    ],
)
def test_an_invalid_header_is_as_good_as_none(value: str) -> None:
    assert parsed(value) is None


def test_two_headers_are_as_good_as_none() -> None:
    assert parsed(GOOD, GOOD) is None


@pytest.mark.anyio
async def test_the_trace_goes_on_in_the_answer_and_in_every_log_line(client: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        response = await client.post("/classify", content=encode(sine(0.1)), headers={"traceparent": GOOD})
        refused = await client.post("/classify", content=b"no sound", headers={"traceparent": GOOD})
    answers = [
        re.fullmatch(f"00-{TRACE}-([0-9a-f]{{16}})-01", each.headers["traceparent"]) for each in (response, refused)
    ]
    check_error(refused, 415, "audio_not_decodable")
    spans = [answer[1] for answer in answers if answer]
    assert len({SPAN, *spans}) == 3, "each answer has a span of its own"
    assert [line["event"] for line in lines] == ["request", "refused", "request"]
    assert {line["trace_id"] for line in lines} == {TRACE}
    assert [line["span_id"] for line in lines] == [spans[0], spans[1], spans[1]]


@pytest.mark.anyio
async def test_without_a_trace_none_is_made_up(client: httpx.AsyncClient) -> None:
    for headers in ({}, {"traceparent": "nonsense"}):
        assert "traceparent" not in (await client.get("/labels", headers=headers)).headers
