"""Lifts scores to the parents that labels have in AudioSet's ontology: where there is a bark there is a dog, an animal.

scores      Bark .8   Growling .3   Meow .1
rolled up   Bark .8   Growling .3   Meow .1   Dog .8   Cat .3   ...   Animal .8      (Growling is under both)
"""

from functools import lru_cache

import numpy as np

from model.labels import Label, LabelSet, load_ontology


def roll_up(window_scores: np.ndarray, labels: LabelSet) -> tuple[np.ndarray, LabelSet]:
    """Lift scores (W, C) to the labels' parents: each scores at least as much as the best label below it.

    Parents that are not among the labels are taken from AudioSet's ontology and appended: (W, C'), C' >= C.

    Raises: ValueError when the scores are not one number per label.
    """
    if window_scores.ndim != 2 or window_scores.shape[1] != len(labels):
        raise ValueError(f"Scores of shape {window_scores.shape} do not fit {len(labels)} labels.")
    rolled_labels, members = _family(labels)
    rolled = np.empty((len(window_scores), len(rolled_labels)), dtype=window_scores.dtype)
    rolled[:, : len(labels)] = window_scores
    for column, below in members:
        rolled[:, column] = window_scores[:, below].max(axis=1)
    return rolled, rolled_labels


@lru_cache(maxsize=64)
def _family(labels: LabelSet) -> tuple[LabelSet, tuple[tuple[int, list[int]], ...]]:
    """Return the labels with their missing ancestors, and each parent's place with the outputs at or below it."""
    members: dict[str, list[int]] = {label.mid: [label.index] for label in labels}
    parents = {label.mid: label.parents for label in labels}
    for label in labels:
        for ancestor in _ancestors(label.mid, parents):
            members.setdefault(ancestor, []).append(label.index)
    missing = LabelSet.from_mids(list(members)[len(labels) :])
    added = (Label(len(labels) + label.index, label.mid, label.name, label.parents) for label in missing)
    lifted = ((place, below) for place, below in enumerate(members.values()) if below != [place])
    return LabelSet((*labels, *added)), tuple(lifted)


def _ancestors(mid: str, parents: dict[str, tuple[str, ...]]) -> list[str]:
    """Return every mid above one, nearest first: by `parents` where it has the node, else by the ontology."""
    ontology = load_ontology()
    found = [mid]
    for below in found:  # grows while it is walked
        above = parents.get(below) or (ontology.parents(below) if below in ontology else ())
        found += [parent for parent in above if parent not in found]
    return found[1:]
