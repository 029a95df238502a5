"""Scores, top labels and events; spans and scores are chosen so that each rule shows by itself."""

from itertools import pairwise

import numpy as np
import pytest

from model.labels import LabelSet
from model.scores import (
    Event,
    EventRules,
    ScoredLabel,
    TagOptions,
    clip_scores,
    find_events,
    logits_to_scores,
    summarise,
    top_labels,
)

LABELS = LabelSet.from_mids(["a", "b", "c"])
ONE = LabelSet.from_mids(["a"])
NO_GAP = EventRules(gap_seconds=0.0)


def side_by_side(windows: int) -> list[tuple[float, float]]:
    return [(float(start), float(start + 1)) for start in range(windows)]


def overlapping(windows: int) -> list[tuple[float, float]]:
    """Windows of 2 seconds every second."""
    return [(float(start), float(start + 2)) for start in range(windows)]


def found(
    scores: list[float], spans: list[tuple[float, float]], rules: EventRules = NO_GAP
) -> list[tuple[float, float]]:
    events = find_events(np.array(scores)[:, None], spans, ONE, rules)
    return [(event.start_seconds, event.end_seconds) for event in events]


# --- logits to scores ---


def test_sigmoid_scores_each_class_by_itself():
    scores = logits_to_scores(np.array([[0.0, 2.0, -2.0]], dtype=np.float32), "sigmoid")
    np.testing.assert_allclose(scores, [[0.5, 0.880797, 0.119203]], atol=1e-6)
    assert scores.dtype == np.float32


def test_softmax_scores_share_one():
    scores = logits_to_scores(np.array([[0.0, np.log(3.0)], [5.0, 5.0]]), "softmax")
    np.testing.assert_allclose(scores, [[0.25, 0.75], [0.5, 0.5]], atol=1e-6)
    assert scores.dtype == np.float32


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_huge_logits_do_not_overflow(activation):
    scores = logits_to_scores(np.array([[1e4, -1e4]]), activation)
    assert scores.tolist() == [[1.0, 0.0]]


def test_none_leaves_logits_alone():
    assert logits_to_scores(np.array([[-3.0, 7.0]]), "none").tolist() == [[-3.0, 7.0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_must_be_finite(bad):
    with pytest.raises(ValueError, match="Logits must be finite"):
        logits_to_scores(np.array([[0.0, bad]]), "sigmoid")


def test_unknown_activations_are_refused():
    with pytest.raises(ValueError, match="not 'tanh'"):
        logits_to_scores(np.zeros((1, 2)), "tanh")


# --- top labels ---


def test_top_labels_are_sorted_and_ties_keep_label_order():
    assert top_labels(np.array([0.5, 0.9, 0.5]), LABELS, 3, 0.0) == (
        ScoredLabel("b", "b", 0.9),
        ScoredLabel("a", "a", 0.5),
        ScoredLabel("c", "c", 0.5),
    )


def test_top_k_and_threshold_cut():
    scores = np.array([0.5, 0.9, 0.2])
    assert [label.mid for label in top_labels(scores, LABELS, 1, 0.0)] == ["b"]
    assert [label.mid for label in top_labels(scores, LABELS, 99, 0.5)] == ["b", "a"]
    assert top_labels(scores, LABELS, 3, 1.0) == ()


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True, None])
def test_impossible_top_k_is_refused(top_k):
    with pytest.raises(ValueError, match="top_k must be a whole number of at least 1"):
        top_labels(np.zeros(3), LABELS, top_k, 0.0)
    with pytest.raises(ValueError, match="top_k must be a whole number of at least 1"):
        TagOptions(top_k=top_k)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, np.nan])
def test_impossible_thresholds_are_refused(threshold):
    with pytest.raises(ValueError, match="threshold must be between 0 and 1"):
        top_labels(np.zeros(3), LABELS, 1, threshold)
    with pytest.raises(ValueError, match="threshold must be between 0 and 1"):
        TagOptions(threshold=threshold)


def test_scores_must_be_numbers_and_fit():
    with pytest.raises(ValueError, match="NaN"):
        top_labels(np.array([0.1, np.nan, 0.2]), LABELS, 1, 0.0)
    with pytest.raises(ValueError, match="do not fit 3 labels"):
        top_labels(np.zeros(4), LABELS, 1, 0.0)


def test_clip_scores_are_the_highest_of_the_windows():
    assert clip_scores(np.array([[0.1, 0.9], [0.4, 0.2]])).tolist() == [0.4, 0.9]
    with pytest.raises(ValueError, match="with a window"):
        clip_scores(np.zeros((0, 2)))


# --- events ---


def test_an_event_enters_high_and_leaves_low():
    """The module's first drawing: 0.4 neither begins an event nor ends one."""
    assert found([0.1, 0.4, 0.7, 0.9, 0.4, 0.6, 0.2], side_by_side(7)) == [(2.0, 6.0)]


def test_an_event_carries_its_highest_score():
    events = find_events(np.array([[0.1], [0.6], [0.8], [0.4]]), side_by_side(4), ONE, EventRules())
    assert events == (Event("a", "a", 1.0, 4.0, 0.8),)


def test_thresholds_are_inclusive():
    assert found([0.5, 0.35, 0.349], side_by_side(3)) == [(0.0, 2.0)]
    assert found([0.499], side_by_side(1)) == []


def test_an_event_may_span_the_whole_clip_or_one_window():
    assert found([0.9, 0.9], side_by_side(2)) == [(0.0, 2.0)]
    assert found([0.9], [(0.0, 0.4)]) == [(0.0, 0.4)]
    assert found([0.9], [(0.0, 10.0)]) == [(0.0, 10.0)]


def test_quiet_neighbours_cut_what_they_share():
    """The module's second drawing."""
    assert found([0.1, 0.8, 0.9, 0.7, 0.2], overlapping(5)) == [(2.0, 4.0)]


def test_contradicting_neighbours_leave_what_the_loud_windows_share():
    """The module's third drawing; two loud windows share one second."""
    assert found([0.1, 0.9, 0.2], overlapping(3)) == [(1.0, 3.0)]
    assert found([0.1, 0.9, 0.9, 0.2], overlapping(4)) == [(2.0, 3.0)]


def test_overlapping_windows_reach_the_ends_of_the_clip():
    assert found([0.9, 0.9, 0.9], overlapping(3)) == [(0.0, 4.0)]
    assert found([0.9, 0.1, 0.9], overlapping(3)) == [(0.0, 1.0), (3.0, 4.0)]


def test_a_last_window_moved_back_only_adds_what_is_new():
    assert found([0.1, 0.9], [(0.0, 10.0), (2.4, 12.4)]) == [(10.0, 12.4)]
    assert found([0.9, 0.1], [(0.0, 10.0), (2.4, 12.4)]) == [(0.0, 2.4)]


def test_a_neighbour_that_is_not_quiet_cuts_nothing():
    """0.4 is too low to begin the event but too high to say that the sound is not there."""
    assert found([0.4, 0.9, 0.1], overlapping(3)) == [(1.0, 2.0)]


@pytest.mark.parametrize(
    ("gap_seconds", "events"),
    [(0.5, [(0.0, 1.0), (2.0, 3.0)]), (1.0, [(0.0, 3.0)]), (2.0, [(0.0, 3.0)])],
)
def test_small_gaps_are_bridged(gap_seconds, events):
    assert found([0.9, 0.1, 0.9], side_by_side(3), EventRules(gap_seconds=gap_seconds)) == events


def test_short_events_are_dropped_after_gaps_are_bridged():
    scores = [0.9, 0.1, 0.9, 0.1, 0.1, 0.1, 0.9]
    rules = EventRules(gap_seconds=1.0, minimum_seconds=2.0)
    assert found(scores, side_by_side(7), rules) == [(0.0, 3.0)]


def test_a_class_may_have_its_own_threshold():
    scores = np.array([[0.3, 0.3], [0.22, 0.22], [0.2, 0.2]])
    labels = LabelSet.from_mids(["a", "b"])
    events = find_events(scores, side_by_side(3), labels, EventRules(per_class={"b": 0.3}))
    assert events == (Event("b", "b", 0.0, 2.0, 0.3),)  # leaves below 0.3 * 0.35 / 0.5 = 0.21


def test_a_threshold_of_zero_is_always_on():
    assert found([0.0, 0.0], side_by_side(2), EventRules(enter=0.0, leave=0.0)) == [(0.0, 2.0)]


def test_events_come_by_start_then_by_score():
    scores = np.array([[0.1, 0.6, 0.7], [0.9, 0.6, 0.1]])
    events = find_events(scores, side_by_side(2), LABELS, EventRules())
    assert [event.mid for event in events] == ["c", "b", "a"]


def test_events_of_one_label_never_overlap():
    generator = np.random.default_rng(0)
    spans = [(0.5 * index, 0.5 * index + 2.0) for index in range(200)]
    for _ in range(20):
        events = found(generator.random(200).tolist(), spans)
        assert all(start < end for start, end in events)
        assert all(before[1] < after[0] for before, after in pairwise(events))


def test_no_windows_make_no_events():
    assert find_events(np.zeros((0, 3)), [], LABELS, EventRules()) == ()


@pytest.mark.parametrize(
    ("spans", "sentence"),
    [
        ([(0.0, 1.0)], "2 windows of scores but 1 spans"),
        ([(1.0, 2.0), (0.0, 1.0)], "does not follow"),
        ([(0.0, 1.0), (0.0, 1.0)], "does not follow"),
        ([(0.0, 1.0), (1.0, 1.0)], "is empty"),
        ([(0.0, 1.0), (1.0, np.nan)], "is empty"),
    ],
)
def test_impossible_spans_are_refused(spans, sentence):
    with pytest.raises(ValueError, match=sentence):
        find_events(np.zeros((2, 1)), spans, ONE, EventRules())


def test_events_need_scores_that_are_numbers():
    with pytest.raises(ValueError, match="NaN"):
        find_events(np.array([[0.1], [np.nan]]), side_by_side(2), ONE, EventRules())


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ({"enter": 1.5}, "enter must be between 0 and 1"),
        ({"leave": np.nan}, "leave must be between 0 and 1"),
        ({"enter": 0.3, "leave": 0.4}, "leave must not be above enter"),
        ({"minimum_seconds": -1.0}, "minimum_seconds must be"),
        ({"gap_seconds": np.inf}, "gap_seconds must be"),
        ({"per_class": {"a": 2.0}}, "threshold of a must be between 0 and 1"),
    ],
)
def test_impossible_rules_are_refused(rules, sentence):
    with pytest.raises(ValueError, match=sentence):
        EventRules(**rules)


# --- all together ---


def test_summarise_gives_clip_windows_and_events():
    scores = np.array([[0.9, 0.2, 0.1], [0.1, 0.6, 0.2]])
    labels, windows, events = summarise(scores, side_by_side(2), LABELS, TagOptions(top_k=2, threshold=0.15))
    assert [(label.mid, label.score) for label in labels] == [("a", 0.9), ("b", 0.6)]
    assert [(window.start_seconds, window.end_seconds) for window in windows] == [(0.0, 1.0), (1.0, 2.0)]
    assert [[label.mid for label in window.labels] for window in windows] == [["a", "b"], ["b", "c"]]
    assert [event.mid for event in events] == ["a", "b"]


def test_summarise_rolls_up_on_request():
    bark = LabelSet.from_mids(["/m/05tny_"])
    scores = np.array([[0.9], [0.1]])
    labels, windows, events = summarise(scores, side_by_side(2), bark, TagOptions(rollup=True))
    expected = ["Bark", "Dog", "Domestic animals, pets", "Animal"]
    assert [label.label for label in labels] == expected
    assert [label.label for label in windows[0].labels] == expected
    assert [event.label for event in events] == expected
    assert [label.label for label in summarise(scores, side_by_side(2), bark, TagOptions())[0]] == ["Bark"]


def test_summarise_needs_a_window():
    with pytest.raises(ValueError, match="with a window"):
        summarise(np.zeros((0, 3)), [], LABELS, TagOptions())


def test_summarise_refuses_scores_that_are_no_numbers():
    with pytest.raises(ValueError, match="NaN"):
        summarise(np.full((1, 3), np.nan), side_by_side(1), LABELS, TagOptions(rollup=True))
