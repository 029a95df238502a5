"""What was heard, written for people and tools: json, jsonl, csv, and label files for Audacity, WebVTT and Raven.

json and jsonl hold everything; csv holds every score, one per row; audacity, webvtt and raven hold the events. A mid
stands beside every label, because AudioSet names hold commas and are not the same in every label set.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from model.scores import Event, ScoredLabel, WindowTags

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
        "labels": [_scored_label(label) for label in tagged.labels],
        "windows": [_window(window) for window in tagged.windows],
        "events": [_event(event) for event in tagged.events],
        **report.extra,
    }


def window_line(window: WindowTags, source: str = "") -> str:
    """One line of JSON for one window: what jsonl starts with, and what a stream sends while the sound is tagged."""
    return _json_line({"type": "window", **({"source": source} if source else {}), **_window(window)})


def summary_line(report: Report) -> str:
    """The line of JSON that closes a sound: the whole answer without its windows."""
    return _json_line({"type": "summary", **{key: value for key, value in answer(report).items() if key != "windows"}})


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
    """A header, then one row per score; `kind` says of what: the whole clip, a window or an event."""
    yield _csv_row(CSV_COLUMNS)
    for report in reports:
        tagged = report.tagged
        for label in tagged.labels:
            yield _csv_row(_csv_values(report, "clip", 0.0, tagged.duration_seconds, label))
        for window in tagged.windows:
            for label in window.labels:
                yield _csv_row(_csv_values(report, "window", window.start_seconds, window.end_seconds, label))
        for event in tagged.events:
            yield _csv_row(_csv_values(report, "event", event.start_seconds, event.end_seconds, event))


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
                *(str(selection), "Spectrogram 1", "1"),
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


def _scored_label(label: ScoredLabel) -> dict[str, Any]:
    return {"mid": label.mid, "label": label.label, "score": label.score}


def _window(window: WindowTags) -> dict[str, Any]:
    return {
        "start_seconds": window.start_seconds,
        "end_seconds": window.end_seconds,
        "labels": [_scored_label(label) for label in window.labels],
    }


def _event(event: Event) -> dict[str, Any]:
    return {
        "mid": event.mid,
        "label": event.label,
        "start_seconds": event.start_seconds,
        "end_seconds": event.end_seconds,
        "score": event.score,
    }


def _json_line(values: dict[str, Any]) -> str:
    return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE).decode()


def _csv_values(report: Report, kind: str, start: float, end: float, label: ScoredLabel | Event) -> tuple[str, ...]:
    return (report.source, kind, f"{start:.3f}", f"{end:.3f}", label.mid, label.label, f"{label.score:.6f}")


def _csv_row(values: Sequence[str]) -> str:
    row = io.StringIO()
    csv.writer(row, lineterminator="\n").writerow(values)
    return row.getvalue()


def _event_text(event: Event) -> str:
    return _one_line(f"{event.label} [{event.mid}] {event.score:.2f}")


def _one_line(text: str) -> str:
    """Line breaks and tabs would end a field of these formats."""
    return " ".join(text.split())


def _webvtt_time(milliseconds: int) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{milliseconds:03}"


def _webvtt_text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
