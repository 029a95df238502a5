"""Following one window after the other gives the events of the whole, each once and no later than it must be.

The rule itself is tested in test_scores.py, drawing by drawing; here is an independent reading of it, on whole arrays.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.events import Event, EventRules, EventStart, EventTracker, Spans, find_events
from model.labels import LabelSet

ONE = LabelSet.from_mids(["a"])
SCORES = st.lists(st.sampled_from([0.0, 0.2, 0.349, 0.35, 0.4, 0.499, 0.5, 0.7, 1.0]), min_size=1, max_size=40)


@st.composite
def rules(draw: st.DrawFn) -> EventRules:
    return EventRules(
        gap_seconds=draw(st.sampled_from([0.0, 0.5, 1.0, 3.0])), minimum_seconds=draw(st.sampled_from([0.0, 1.0, 2.5]))
    )


def grid(windows: int, window: float, hop: float, moved_back: float) -> list[tuple[float, float]]:
    """Windows every hop, the last one moved back by less than that."""
    starts = [index * hop for index in range(windows)]
    starts[-1] -= moved_back if windows > 1 else 0.0
    return [(start, start + window) for start in starts]


def by_whole_array(scores: list[float], spans: Spans, rules: EventRules) -> list[Event]:
    """The same rule for one label, looking at all windows at once."""
    found: list[Event] = []
    row = np.array(scores)
    enter, leave = rules.thresholds("a")
    edges = np.flatnonzero(np.diff(np.concatenate(([0], (row >= leave).astype(int), [0]))))
    for begin, stop in edges.reshape(-1, 2):
        entered = np.flatnonzero(row[begin:stop] >= enter)
        if not len(entered):
            continue
        first, last = begin + entered[0], stop - 1
        start, end = spans[first][0], spans[last][1]
        if first > 0 and row[first - 1] < leave:
            start = max(start, spans[first - 1][1])
        if stop < len(row):
            end = min(end, spans[stop][0])
        if not start < end:
            start, end = spans[last][0], spans[first][1]
        peak = row[first:stop].max()
        if found and start - found[-1].end_seconds <= rules.gap_seconds:
            before = found.pop()
            start, end = min(start, before.start_seconds), max(end, before.end_seconds)
            peak = max(peak, before.score)
        found.append(Event("a", "a", start, end, float(peak)))
    return [event for event in found if event.end_seconds - event.start_seconds >= rules.minimum_seconds]


@given(
    scores=SCORES,
    rules=rules(),
    window=st.sampled_from([1.0, 2.0, 5.0]),
    hop=st.sampled_from([0.25, 0.5, 1.0]),
    moved_back=st.sampled_from([0.0, 0.125]),
)
@settings(deadline=None, max_examples=300)
def test_windows_one_by_one_give_what_all_at_once_give(
    scores: list[float], rules: EventRules, window: float, hop: float, moved_back: float
) -> None:
    spans = grid(len(scores), window, hop, moved_back)
    expected = by_whole_array(scores, spans, rules)
    assert list(find_events(np.array(scores)[:, None], spans, ONE, rules)) == expected
    tracker = EventTracker(ONE, rules)
    news = []
    for (start, end), score in zip(spans, scores, strict=True):
        news += tracker.push(start, end, np.array([score]))
    news += tracker.finish()
    assert [event for event in news if isinstance(event, Event)] == expected, "each event comes once, in order"
    if rules.minimum_seconds == 0:
        assert [type(event) for event in news] == [EventStart, Event] * len(expected), "each begins before it ends"


def follow(scores: list[float], hop: float = 1.0, window: float = 1.0, **options: float) -> list[tuple[int, str]]:
    """Behind which window something is told, and what."""
    tracker, told = EventTracker(ONE, EventRules(**options)), []
    for index, score in enumerate(scores):
        news = tracker.push(index * hop, index * hop + window, np.array([score]))
        told += [(index, "ended" if isinstance(event, Event) else "started") for event in news]
    return told


def test_an_event_is_told_when_it_begins_and_when_its_gap_has_passed() -> None:
    assert follow([0.1, 0.9, 0.9, 0.1, 0.1, 0.1]) == [(1, "started"), (4, "ended")]
    assert follow([0.1, 0.9, 0.9, 0.1, 0.1, 0.1], gap_seconds=0.0) == [(1, "started"), (3, "ended")]


def test_a_pause_within_the_gap_is_one_event_with_one_beginning() -> None:
    assert follow([0.9, 0.1, 0.9, 0.1, 0.1, 0.1], gap_seconds=1.0) == [(0, "started"), (4, "ended")]


def test_a_second_event_is_told_as_soon_as_it_cannot_be_the_first_ones_continuation() -> None:
    """Windows of four seconds share so much that the second event's place shows only later."""
    told = follow([0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], window=4.0, gap_seconds=1.0)
    assert told == [(0, "started"), (6, "ended"), (6, "started")]


def test_what_is_held_does_not_grow_with_the_sound() -> None:
    tracker = EventTracker(ONE, EventRules())
    for index in range(1000):
        tracker.push(index, index + 1, np.array([index % 4 < 2], np.float32))
        assert len(tracker._pending) + len(tracker._runs) <= 2
        assert not tracker._news


@pytest.mark.parametrize(
    ("window", "scores", "sentence"),
    [
        ((1.0, 1.0), [0.5], "is empty"),
        ((0.0, 2.0), [0.5], "does not follow"),
        ((1.0, 2.0), [np.nan], "NaN"),
        ((1.0, 2.0), [0.1, 0.2], "do not fit 1 labels"),
    ],
)
def test_a_window_that_cannot_be_next_is_refused(
    window: tuple[float, float], scores: list[float], sentence: str
) -> None:
    tracker = EventTracker(ONE, EventRules())
    tracker.push(0.0, 1.0, np.array([0.5]))
    with pytest.raises(ValueError, match=sentence):
        tracker.push(*window, np.array(scores))
