"""What was heard, written for people and tools: json, jsonl, csv, and label files for Audacity, WebVTT and Raven.

json and jsonl hold everything; csv holds every score, one per row; audacity, webvtt and raven hold the events. A mid
stands beside every label, because AudioSet names hold commas and are not the same in every label set.

Where channels were tagged one by one, every window and event says whose it is, counting from 0 (Raven counts from 1).
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from model.events import Event
from model.scores import ChannelTags, ScoredLabel, WindowTags

CSV_COLUMNS = ("source", "kind", "start_seconds", "end_seconds", "mid", "label", "score")
RAVEN_COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Begin File", "Label", "MID", "Score"),
)


class Tagged(Protocol):
    """What every writer needs to know of a tagged sound; the offline pipeline's `Tagging` has it."""

    @property
    def model(self) -> str: ...
    @property
    def duration_seconds(self) -> float: ...
    @property
    def sample_rate(self) -> int: ...
    @property
    def labels(self) -> Sequence[ScoredLabel]: ...
    @property
    def windows(self) -> Sequence[WindowTags]: ...
    @property
    def events(self) -> Sequence[Event]: ...
    @property
    def channels(self) -> Sequence[ChannelTags]: ...


@dataclass(frozen=True)
class Report:
    """One tagged sound, the name it goes by (may be empty), and what else the JSON answer shall hold."""

    tagged: Tagged
    source: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


Writer = Callable[[Iterable[Report]], Iterator[str]]


@dataclass(frozen=True)
class Format:
    """A writer for one sound, its media type, and a writer for several sounds where one document can hold them."""

    write: Writer
    media_type: str
    write_several: Writer | None = None


def answer(report: Report) -> dict[str, Any]:
    """The JSON answer of `POST /classify` as plain values."""
    tagged = report.tagged
    return {
        **({"source": report.source} if report.source else {}),
        "model": tagged.model,
        "duration_seconds": tagged.duration_seconds,
        "sample_rate": tagged.sample_rate,
        "labels": [label_values(label) for label in tagged.labels],
        **({"channels": [_channel_tags(tags) for tags in tagged.channels]} if tagged.channels else {}),
        "windows": [window_values(window) for window in tagged.windows],
        "events": [event_values(event) for event in tagged.events],
        **report.extra,
    }


def window_values(window: WindowTags) -> dict[str, Any]:
    """A window of the JSON answer as plain values."""
    return {
        **_channel(window.channel),
        "start_seconds": window.start_seconds,
        "end_seconds": window.end_seconds,
        "labels": [label_values(label) for label in window.labels],
    }


def event_values(event: Event) -> dict[str, Any]:
    """An event of the JSON answer as plain values."""
    return {
        **_channel(event.channel),
        "mid": event.mid,
        "label": event.label,
        "start_seconds": event.start_seconds,
        "end_seconds": event.end_seconds,
        "score": event.score,
    }


def label_values(label: ScoredLabel) -> dict[str, Any]:
    """A label of the JSON answer as plain values."""
    return {"mid": label.mid, "label": label.label, "score": label.score}


def window_line(window: WindowTags, source: str = "") -> str:
    """One line of JSON for one window: what jsonl starts with."""
    return json_line({"type": "window", **({"source": source} if source else {}), **window_values(window)})


def summary_line(report: Report) -> str:
    """The line of JSON that closes a sound: the whole answer without its windows."""
    return json_line({"type": "summary", **{key: value for key, value in answer(report).items() if key != "windows"}})


def write_json(reports: Iterable[Report]) -> Iterator[str]:
    """One indented object per sound."""
    for report in reports:
        yield orjson.dumps(answer(report), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def write_json_array(reports: Iterable[Report]) -> Iterator[str]:
    """The objects of several sounds in one JSON document."""
    start = "[\n"
    for text in write_json(reports):
        yield start + text.rstrip("\n")
        start = ",\n"
    yield "[]\n" if start == "[\n" else "\n]\n"


def write_jsonl(reports: Iterable[Report]) -> Iterator[str]:
    """For each sound a line per window, then its summary."""
    for report in reports:
        for window in report.tagged.windows:
            yield window_line(window, report.source)
        yield summary_line(report)


def write_csv(reports: Iterable[Report]) -> Iterator[str]:
    """A header, then one row per score; `kind` says of what: the whole clip, a channel, a window or an event.

    The last column is `channel` where the channels of the first sound were tagged one by one.
    """
    split: bool | None = None
    for report in reports:
        if split is None:
            split = bool(report.tagged.channels)
            yield _csv_row((*CSV_COLUMNS, "channel") if split else CSV_COLUMNS)
        for kind, start, end, label, channel in _scores(report.tagged):
            values = (report.source, kind, f"{start:.3f}", f"{end:.3f}", label.mid, label.label, f"{label.score:.6f}")
            yield _csv_row((*values, "" if channel is None else str(channel)) if split else values)
    if split is None:
        yield _csv_row(CSV_COLUMNS)


def write_audacity(reports: Iterable[Report]) -> Iterator[str]:
    """A label track for File > Import > Labels: start, end and text of every event, tabs between."""
    for report in reports:
        for event in report.tagged.events:
            yield f"{event.start_seconds:.6f}\t{event.end_seconds:.6f}\t{_event_text(event)}\n"


def write_webvtt(reports: Iterable[Report]) -> Iterator[str]:
    """Subtitles: one cue per event, in order of their start."""
    yield "WEBVTT\n"
    for report in reports:
        for event in sorted(report.tagged.events, key=lambda event: event.start_seconds):
            start = round(event.start_seconds * 1000)
            end = max(round(event.end_seconds * 1000), start + 1)  # a cue must not be empty
            yield f"\n{_webvtt_time(start)} --> {_webvtt_time(end)}\n{_webvtt_text(_event_text(event))}\n"


def write_raven(reports: Iterable[Report]) -> Iterator[str]:
    """A selection table for Raven: one numbered row per event over the whole band, its own columns first."""
    yield "\t".join(RAVEN_COLUMNS) + "\n"
    selection = 0
    for report in reports:
        high_hz = report.tagged.sample_rate / 2
        for event in report.tagged.events:
            selection += 1
            values = (
                *(str(selection), "Spectrogram 1", str(1 + (event.channel or 0))),
                *(f"{event.start_seconds:.6f}", f"{event.end_seconds:.6f}", "0.0", f"{high_hz:.1f}"),
                *(_one_line(report.source), _one_line(event.label), event.mid, f"{event.score:.4f}"),
            )
            yield "\t".join(values) + "\n"


FORMATS: dict[str, Format] = {
    "json": Format(write_json, "application/json", write_json_array),
    "jsonl": Format(write_jsonl, "application/x-ndjson", write_jsonl),
    "csv": Format(write_csv, "text/csv; charset=utf-8", write_csv),
    "audacity": Format(write_audacity, "text/plain; charset=utf-8"),
    "webvtt": Format(write_webvtt, "text/vtt; charset=utf-8"),
    "raven": Format(write_raven, "text/tab-separated-values; charset=utf-8", write_raven),
}


def json_line(values: dict[str, Any]) -> str:
    """The values on one line, with its end."""
    return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE).decode()


def _channel_tags(tags: ChannelTags) -> dict[str, Any]:
    return {"channel": tags.channel, "labels": [label_values(label) for label in tags.labels]}


def _channel(channel: int | None) -> dict[str, int]:
    return {} if channel is None else {"channel": channel}


def _scores(tagged: Tagged) -> Iterator[tuple[str, float, float, ScoredLabel | Event, int | None]]:
    """Every score of a sound: its kind, start and end in seconds, label, and channel."""
    for label in tagged.labels:
        yield "clip", 0.0, tagged.duration_seconds, label, None
    for tags in tagged.channels:
        for label in tags.labels:
            yield "channel", 0.0, tagged.duration_seconds, label, tags.channel
    for window in tagged.windows:
        for label in window.labels:
            yield "window", window.start_seconds, window.end_seconds, label, window.channel
    for event in tagged.events:
        yield "event", event.start_seconds, event.end_seconds, event, event.channel


def _csv_row(values: Sequence[str]) -> str:
    row = io.StringIO()
    csv.writer(row, lineterminator="\n").writerow(values)
    return row.getvalue()


def _event_text(event: Event) -> str:
    channel = "" if event.channel is None else f" channel {event.channel}"
    return _one_line(f"{event.label} [{event.mid}] {event.score:.2f}{channel}")


def _one_line(text: str) -> str:
    """Line breaks and tabs would end a field of these formats."""
    return " ".join(text.split())


def _webvtt_time(milliseconds: int) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milliseconds:03}"


def _webvtt_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
