"""Where predictions go most wrong: the worst false alarms and misses with their sound, and which labels are confused.

A label above one of the clip's in AudioSet's ontology is no false alarm: a dog that is called an animal is one.
"""

import io
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import soundfile

from model.labels import LabelSet, load_ontology
from model.training.clips import Clip, ClipError, read_clip
from model.training.predictions import Predictions

MOST_PER_LABEL = 3
EXCERPT_SAMPLE_RATE = 16_000
EXCERPT_SECONDS = 10.0
_BLOCK_SAMPLES = 8192  # libsndfile's Vorbis encoder overflows its stack on long blocks
_LEAST_SHARE = 1e-7  # keeps the loss of a score of exactly 0 or 1 finite


@dataclass(frozen=True)
class Mistake:
    """A label that a clip has and whose score stays below its threshold, or the other way round.

    `loss` is the binary cross-entropy of this one score.
    """

    kind: Literal["false alarm", "miss"]
    row: int
    label: str
    score: float
    loss: float
    start_seconds: float


@dataclass(frozen=True)
class Confusion:
    """How many clips of one label had another, which they do not have, as their best."""

    label: str
    heard: str
    clips: int


def worst_mistakes(predictions: Predictions, kind: Literal["false alarm", "miss"], most: int = 20) -> list[Mistake]:
    """The mistakes of one kind with the highest loss, worst first, at most three of a label."""
    scores = predictions.scores
    if kind == "miss":
        wrong = predictions.truth & (scores < predictions.threshold_values)
        right_share = scores
    else:
        wrong = ~implied(predictions) & (scores >= predictions.threshold_values)
        right_share = 1 - scores
    loss = -np.log(np.maximum(right_share, _LEAST_SHARE))
    rows, columns = np.nonzero(wrong)
    taken: Counter[int] = Counter()
    worst = []
    for i in np.argsort(-loss[rows, columns], kind="stable"):
        row, column = int(rows[i]), int(columns[i])
        taken[column] += 1
        if taken[column] <= MOST_PER_LABEL:
            start = float(predictions.loudest_seconds[row, column])
            name = predictions.labels[column].name
            worst.append(Mistake(kind, row, name, float(scores[row, column]), float(loss[row, column]), start))
        if len(worst) == most:
            break
    return worst


def confusions(predictions: Predictions, most: int = 20) -> list[Confusion]:
    """Pairs of a clip's first label and the best-scored one where that is none of the clip's, most frequent first."""
    best = predictions.scores.argmax(1)
    right = implied(predictions)
    names = {label.mid: label.name for label in predictions.labels}
    pairs = Counter(
        (names[clip.mids[0]], predictions.labels[int(column)].name)
        for clip, column, allowed in zip(predictions.clips, best, right, strict=True)
        if clip.mids and not allowed[column]
    )
    return [Confusion(label, heard, clips) for (label, heard), clips in sorted(pairs.items(), key=_rank)[:most]]


def implied(predictions: Predictions) -> np.ndarray:
    """Each clip's labels and all above them in the ontology: (clips, C) bool."""
    result = predictions.truth.copy()
    for column, label in enumerate(predictions.labels):
        above = [predictions.labels.index_of(mid) for mid in ancestors(label.mid) if mid in predictions.labels.mids]
        result[:, above] |= predictions.truth[:, [column]]
    return result


@cache
def ancestors(mid: str) -> tuple[str, ...]:
    """Every mid above one in AudioSet's ontology; none for what is not in it."""
    ontology = load_ontology()
    return ontology.ancestors(mid) if mid in ontology else ()


def excerpt(clip: Clip, start_seconds: float, seconds: float) -> bytes | None:
    """Ogg Vorbis of what a window heard, mono and at most ten seconds; None where the clip can no longer be read."""
    try:
        waveform = read_clip(clip, EXCERPT_SAMPLE_RATE)
    except ClipError:
        return None
    start = round(start_seconds * EXCERPT_SAMPLE_RATE)
    waveform = waveform[start : start + round(min(seconds, EXCERPT_SECONDS) * EXCERPT_SAMPLE_RATE)]
    waveform = waveform / max(1.0, float(np.abs(waveform).max(initial=0.0)))
    encoded = io.BytesIO()
    with soundfile.SoundFile(encoded, "w", EXCERPT_SAMPLE_RATE, 1, format="OGG", subtype="VORBIS") as file:
        for block in range(0, len(waveform), _BLOCK_SAMPLES):
            file.write(waveform[block : block + _BLOCK_SAMPLES])
    return encoded.getvalue()


def label_names(clip: Clip, labels: LabelSet) -> str:
    """A clip's labels for people."""
    return ", ".join(labels[labels.index_of(mid)].name for mid in clip.mids) or "no label"


def _rank(pair: tuple[tuple[str, str], int]) -> tuple[int, tuple[str, str]]:
    return -pair[1], pair[0]
