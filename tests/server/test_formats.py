"""Every format, read back by a reader of its own."""

import csv
import io
import json
import re
from html import unescape

import pytest

from model.events import Event
from model.scores import ChannelTags, ScoredLabel, WindowTags
from server.formats import CSV_COLUMNS, FORMATS, RAVEN_COLUMNS, Report, summary_line, window_line, write_json_array

# AudioSet has names with commas; quotes, angle brackets and tabs come with people's own label sets.
BABY = ("/t/dd00002", "Baby cry, infant cry")
QUOTED = ("/m/quoted", 'the "drill", <loud> & -->\tnear')
DOG = ("/m/0bt9lr", "Dog")


class Heard:
    """A stand-in for a tagged sound of two windows."""

    model = "aum-tiny"
    duration_seconds = 3725.5
    sample_rate = 16000
    labels = (ScoredLabel(*BABY, 0.93), ScoredLabel(*QUOTED, 0.61))
    windows = (
        WindowTags(0.0, 10.0, (ScoredLabel(*BABY, 0.93), ScoredLabel(*QUOTED, 0.125))),
        WindowTags(3715.5, 3725.5, (ScoredLabel(*QUOTED, 0.61),)),
    )
    events = (
        Event(*QUOTED, 3715.5, 3725.5, 0.61),
        Event(*BABY, 0.0, 10.0, 0.93),
        Event(*DOG, 1.0, 1.0001, 0.5),
    )
    channels = ()


class Split(Heard):
    """The same with its two channels tagged one by one."""

    channels = (ChannelTags(0, (ScoredLabel(*BABY, 0.93),)), ChannelTags(1, (ScoredLabel(*QUOTED, 0.61),)))
    windows = (
        WindowTags(0.0, 10.0, (ScoredLabel(*BABY, 0.93),), channel=0),
        WindowTags(0.0, 10.0, (ScoredLabel(*QUOTED, 0.61),), channel=1),
    )
    events = (Event(*BABY, 0.0, 10.0, 0.93, channel=0), Event(*QUOTED, 0.0, 10.0, 0.61, channel=1))


REPORT = Report(Heard(), source='my "best", take.wav', extra={"request_id": "r1"})


def written(name: str, *reports: Report) -> str:
    return "".join(FORMATS[name].write(reports or [REPORT]))


def plain(name: str) -> str:
    """The label as formats without quoting hold it: tabs become spaces."""
    return " ".join(name.split())


def test_json_is_the_contracts_answer():
    answer = json.loads(written("json"))
    assert answer["labels"][0] == {"mid": BABY[0], "label": BABY[1], "score": 0.93}
    assert answer["windows"][1]["labels"] == [{"mid": QUOTED[0], "label": QUOTED[1], "score": 0.61}]
    assert answer["events"][1] == {
        **{"mid": BABY[0], "label": BABY[1]},
        **{"start_seconds": 0.0, "end_seconds": 10.0, "score": 0.93},
    }
    assert (answer["source"], answer["request_id"], answer["sample_rate"]) == (REPORT.source, "r1", 16000)


def test_json_of_several_sounds_is_an_array_and_a_nameless_sound_has_no_source():
    answers = json.loads("".join(write_json_array([REPORT, Report(Heard())])))
    assert [answer.get("source") for answer in answers] == [REPORT.source, None]
    assert json.loads("".join(write_json_array([]))) == []


def test_jsonl_gives_each_window_then_the_summary():
    lines = [json.loads(line) for line in written("jsonl", REPORT, Report(Heard(), "b.wav")).splitlines()]
    assert [(line["type"], line["source"]) for line in lines] == [
        *[("window", REPORT.source)] * 2,
        ("summary", REPORT.source),
        *[("window", "b.wav")] * 2,
        ("summary", "b.wav"),
    ]
    answer = json.loads(written("json"))
    assert {k: v for k, v in lines[0].items() if k not in ("type", "source")} == answer["windows"][0]
    assert "windows" not in lines[2]
    assert lines[2]["events"] == answer["events"]


def test_a_streams_lines_are_those_of_jsonl():
    streamed = [*(window_line(window, REPORT.source) for window in Heard.windows), summary_line(REPORT)]
    assert "".join(streamed) == written("jsonl")


def test_csv_reads_back_with_names_intact():
    rows = list(csv.DictReader(io.StringIO(written("csv"))))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [row["kind"] for row in rows] == ["clip"] * 2 + ["window"] * 3 + ["event"] * 3
    assert {(row["mid"], row["label"]) for row in rows} == {BABY, QUOTED, DOG}
    assert {row["source"] for row in rows} == {REPORT.source}
    quoted = rows[4]
    assert (float(quoted["start_seconds"]), float(quoted["end_seconds"]), float(quoted["score"])) == (
        3715.5,
        3725.5,
        0.61,
    )


def test_csv_of_several_sounds_has_one_header():
    assert written("csv", REPORT, REPORT).count(",".join(CSV_COLUMNS)) == 1


def test_audacity_reads_back_as_three_tab_separated_fields():
    labels = [line.split("\t") for line in written("audacity").splitlines()]
    read = [
        (float(start), float(end), *re.fullmatch(r"(.*) \[(.*)\] ([\d.]+)", text).groups())
        for start, end, text in labels
    ]
    assert read == [(e.start_seconds, e.end_seconds, plain(e.label), e.mid, f"{e.score:.2f}") for e in Heard.events]


def webvtt_cues(text: str) -> list[tuple[float, float, str]]:
    """A reader after the WebVTT grammar: a header, then blocks of one timing line and the text."""
    header, *blocks = text.rstrip("\n").split("\n\n")
    assert header == "WEBVTT"
    cues = []
    for block in blocks:
        timing, payload = block.split("\n")
        times = re.fullmatch(r"(\d{2,}):(\d\d):(\d\d\.\d{3}) --> (\d{2,}):(\d\d):(\d\d\.\d{3})", timing).groups()
        hours, minutes, seconds, *end = (float(part) for part in times)
        cues.append((hours * 3600 + minutes * 60 + seconds, end[0] * 3600 + end[1] * 60 + end[2], payload))
    return cues


def test_webvtt_reads_back_in_order_with_text_escaped():
    cues = webvtt_cues(written("webvtt"))
    assert [start for start, _, _ in cues] == [0.0, 1.0, 3715.5]
    assert all(end > start for start, end, _ in cues), "players drop a cue that ends when it starts"
    assert all("-->" not in payload and "<" not in payload for _, _, payload in cues)
    assert unescape(cues[2][2]) == f"{plain(QUOTED[1])} [{QUOTED[0]}] 0.61"


def test_raven_reads_back_with_its_own_columns_first():
    rows = list(csv.DictReader(io.StringIO(written("raven", REPORT, REPORT)), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert tuple(rows[0]) == RAVEN_COLUMNS
    assert [row["Selection"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [(row["MID"], row["Label"]) for row in rows[:3]] == [(e.mid, plain(e.label)) for e in Heard.events]
    assert all(float(row["High Freq (Hz)"]) == 8000 and float(row["Low Freq (Hz)"]) == 0 for row in rows)
    assert (float(rows[1]["Begin Time (s)"]), float(rows[1]["End Time (s)"])) == (0.0, 10.0)


@pytest.mark.parametrize(("name", "length"), [("audacity", 0), ("webvtt", 1), ("raven", 1)])
def test_a_sound_without_events_gives_an_empty_document_of_its_format(name: str, length: int):
    class Quiet(Heard):
        events = ()

    assert len(written(name, Report(Quiet())).splitlines()) == length


# --- channels tagged one by one ---


def test_json_says_the_channel_of_everything():
    answer = json.loads(written("json", Report(Split())))
    assert answer["channels"] == [
        {"channel": 0, "labels": [{"mid": BABY[0], "label": BABY[1], "score": 0.93}]},
        {"channel": 1, "labels": [{"mid": QUOTED[0], "label": QUOTED[1], "score": 0.61}]},
    ]
    assert [window["channel"] for window in answer["windows"]] == [0, 1]
    assert [event["channel"] for event in answer["events"]] == [0, 1]
    lines = [json.loads(line) for line in written("jsonl", Report(Split())).splitlines()]
    assert [line.get("channel") for line in lines] == [0, 1, None]
    assert lines[2]["channels"] == answer["channels"]


def test_without_split_channels_no_format_speaks_of_them():
    assert "channel" not in written("json") + written("jsonl") + written("csv") + written("audacity") + written(
        "webvtt"
    )


def test_csv_has_a_last_column_for_the_channel():
    rows = list(csv.DictReader(io.StringIO(written("csv", Report(Split()), Report(Split())))))
    assert tuple(rows[0]) == (*CSV_COLUMNS, "channel")
    told = [(row["kind"], row["channel"]) for row in rows[:8]]
    assert told == [
        *(("clip", ""), ("clip", ""), ("channel", "0"), ("channel", "1")),
        *(("window", "0"), ("window", "1"), ("event", "0"), ("event", "1")),
    ]
    assert len(rows) == 16


def test_csv_of_no_sound_is_its_header():
    assert "".join(FORMATS["csv"].write([])) == ",".join(CSV_COLUMNS) + "\n"


def test_labels_for_people_name_the_channel():
    texts = [line.split("\t")[2] for line in written("audacity", Report(Split())).splitlines()]
    assert texts == [f"{BABY[1]} [{BABY[0]}] 0.93 channel 0", f"{plain(QUOTED[1])} [{QUOTED[0]}] 0.61 channel 1"]
    assert [unescape(payload) for _, _, payload in webvtt_cues(written("webvtt", Report(Split())))] == texts


def test_raven_counts_channels_from_one():
    rows = list(csv.DictReader(io.StringIO(written("raven", Report(Split()))), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert [row["Channel"] for row in rows] == ["1", "2"]
    rows = list(csv.DictReader(io.StringIO(written("raven")), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert {row["Channel"] for row in rows} == {"1"}
