"""Roll-up: a parent scores at least as much as its best child, whether the network knows it or not."""

import numpy as np
import pytest

from model.labels import Label, LabelSet, audioset_labels, load_ontology
from model.rollup import roll_up

LABELS = LabelSet.from_mids(
    [audioset_labels()[audioset_labels().index_of(name)].mid for name in ("Bark", "Dog", "Meow")]
)


def by_name(scores: np.ndarray, labels: LabelSet) -> dict[str, float]:
    return dict(zip(labels.names, scores.tolist(), strict=True))


def test_parents_score_at_least_their_best_child():
    scores, labels = roll_up(np.array([[0.8, 0.3, 0.1]]), LABELS)
    assert by_name(scores[0], labels) == {
        "Bark": 0.8,
        "Dog": 0.8,
        "Meow": 0.1,
        "Domestic animals, pets": 0.8,
        "Animal": 0.8,
        "Cat": 0.1,
    }


def test_a_parent_keeps_a_score_above_its_children():
    scores, labels = roll_up(np.array([[0.2, 0.9, 0.1]]), LABELS)
    assert by_name(scores[0], labels)["Dog"] == 0.9
    assert by_name(scores[0], labels)["Animal"] == 0.9


def test_the_labels_keep_their_places_and_added_ones_follow():
    scores, labels = roll_up(np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]], dtype=np.float32), LABELS)
    assert labels[:3] == LABELS[:3]
    assert [label.index for label in labels] == list(range(6))
    assert scores.shape == (2, 6)
    assert scores.dtype == np.float32


def test_all_of_audioset_is_consistent_after_a_roll_up():
    before = np.random.default_rng(0).random((3, 527), dtype=np.float32)
    scores, labels = roll_up(before, audioset_labels())
    assert (scores[:, :527] >= before).all()
    for label in labels:
        for parent in load_ontology().parents(label.mid):
            assert (scores[:, labels.index_of(parent)] >= scores[:, label.index]).all()


def test_labels_may_bring_their_own_parents():
    own = LabelSet((Label(0, "squeal", "squeal", ("brakes",)), Label(1, "brakes", "brakes", ("/m/0k4j",))))
    scores, labels = roll_up(np.array([[0.7, 0.2]]), own)
    assert by_name(scores[0], labels)["brakes"] == 0.7
    assert by_name(scores[0], labels)["Vehicle"] == 0.7


def test_labels_without_parents_stay_alone():
    plain = LabelSet.from_mids(["one", "two"])
    scores, labels = roll_up(np.array([[0.7, 0.2]]), plain)
    assert labels == plain
    assert scores.tolist() == [[0.7, 0.2]]


def test_scores_must_fit_the_labels():
    with pytest.raises(ValueError, match="do not fit 3 labels"):
        roll_up(np.zeros((1, 4)), LABELS)
