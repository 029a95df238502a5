"""Labelled clips → what checkpoints say about them: each clip's scores beside its truth.

A clip is cut into the checkpoint's own windows, and a label scores as high as in its loudest window, as in
`pipeline.tag`. Clips are decoded ahead on threads, so that memory holds a few of them, however many there are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import numpy as np

from model.checkpoint import Checkpoint
from model.events import EventRules
from model.labels import LabelSet
from model.pipeline import window_grid, window_logits
from model.scores import logits_to_scores
from model.training.ahead import map_ahead
from model.training.bad_files import BadFiles
from model.training.clips import Clip, ClipError, ManifestError, read_clip
from model.training.data import clips_of, split, targets
from model.windows import Window, cut_windows

READING_THREADS = 2
USUAL_VALIDATION_FOLD = 4


@dataclass(frozen=True)
class Predictions:
    """Scores and truth (clips, C) of the clips that could be read, and the start in seconds of the window that decided.

    `unreadable` says of each other clip why it was left out. A clip's mids are only those that are in `labels`.
    """

    name: str
    labels: LabelSet
    clips: list[Clip]
    scores: np.ndarray
    truth: np.ndarray
    loudest_seconds: np.ndarray
    window_seconds: float
    thresholds: dict[str, float]
    unreadable: tuple[str, ...] = ()

    @property
    def threshold_values(self) -> np.ndarray:
        """The score from which each class is heard, its own or the default: (C,)."""
        rules = EventRules(per_class=self.thresholds)
        return np.array([rules.thresholds(mid)[0] for mid in self.labels.mids])

    def take(self, rows: Sequence[int]) -> "Predictions":
        """The same about some of the clips."""
        chosen = np.asarray(rows, dtype=int)
        return replace(
            self,
            clips=[self.clips[row] for row in chosen],
            scores=self.scores[chosen],
            truth=self.truth[chosen],
            loudest_seconds=self.loudest_seconds[chosen],
        )


def predict(
    checkpoint: Checkpoint,
    clips: list[Clip],
    *,
    name: str | None = None,
    strict: bool = False,
    batch_windows: int = 32,
    report: Callable[[str], None] = print,
    advance: Callable[[], None] = lambda: None,
) -> Predictions:
    """Score every clip; `advance` is called once per clip.

    Clips that cannot be read are reported, counted and left out, or (`strict`) the first of them ends it.

    Raises: ManifestError when no clip has a label that the checkpoint knows, none can be read, or (strict) one cannot;
    ValueError naming the first clip for which the network's numbers are not finite.
    """
    clips = known_labels(clips, checkpoint.labels, report)
    bad = BadFiles("stop" if strict else "skip", report)
    rows = _windows(checkpoint, clips, bad, advance)
    scores, loudest = _score(checkpoint, rows, clips, batch_windows)
    bad.summarise(len(clips))
    kept = [row for row, clip in enumerate(clips) if clip.file not in bad.reasons]
    if not kept:
        raise ManifestError("none of the clips can be read, so there is nothing to measure")
    whole = Predictions(
        name=name or checkpoint.name,
        labels=checkpoint.labels,
        clips=clips,
        scores=scores,
        truth=targets(clips, checkpoint.labels).numpy() > 0,
        loudest_seconds=loudest,
        window_seconds=checkpoint.config.window_seconds,
        thresholds=checkpoint.config.thresholds,
        unreadable=tuple(f"{file}: {reason}" for file, reason in bad.reasons.items()),
    )
    readable = whole.take(kept)
    if not readable.truth.any():
        raise ManifestError("no clip that can be read has a label that the checkpoint knows")
    return readable


def choose_clips(clips: list[Clip], fold: int | None = None, part: str | None = None) -> list[Clip]:
    """All clips, those of a fold, or a part: "training", "validation" or "testing".

    Parts are cut as training cuts them with that validation fold, 4 unless given.

    Raises: ManifestError when there are none.
    """
    if part == "testing":
        chosen = clips_of(clips, part)
    elif part:
        training, validation = split(clips, USUAL_VALIDATION_FOLD if fold is None else fold)
        chosen = validation if part == "validation" else training
    else:
        chosen = [clip for clip in clips if fold is None or clip.fold == fold]
    if not chosen:
        folds = ", ".join(map(str, sorted({clip.fold for clip in clips if clip.fold is not None}))) or "none"
        raise ManifestError(f"the manifest has no such clips; its folds are: {folds}")
    return chosen


def known_labels(clips: list[Clip], labels: LabelSet, report: Callable[[str], None]) -> list[Clip]:
    """The clips with only those labels that the checkpoint can score; says which it cannot.

    Raises: ManifestError when none is left.
    """
    known = set(labels.mids)
    unknown = sorted({mid for clip in clips for mid in clip.mids} - known)
    if unknown:
        named = ", ".join(unknown[:5]) + (" and more" if len(unknown) > 5 else "")
        report(f"{len(unknown)} labels of the manifest are not the checkpoint's and do not count: {named}")
    kept = [_known_part(clip, known) for clip in clips]
    if not any(clip.mids for clip in kept):
        raise ManifestError("no clip has a label that the checkpoint knows")
    return kept


def _known_part(clip: Clip, known: set[str]) -> Clip:
    """The clip with its known labels; a category stands for the first label, so it goes where that one is unknown."""
    mids = tuple(mid for mid in clip.mids if mid in known)
    return replace(clip, mids=mids, category=clip.category if mids[:1] == clip.mids[:1] else "")


def ensemble(members: Sequence[Predictions], name: str = "ensemble") -> Predictions:
    """The mean of several checkpoints' scores of the same clips, with no thresholds of its own.

    Raises: ValueError when the checkpoints have other labels than the first, or scored other clips.
    """
    check_same_labels(members)
    first = members[0]
    for other in members[1:]:
        if [clip.file for clip in other.clips] != [clip.file for clip in first.clips]:
            raise ValueError(f"{other.name} and {first.name} scored different clips, so their scores have no mean")
    scores = np.mean([member.scores for member in members], axis=0)
    return replace(first, name=name, scores=scores, thresholds={})


def check_same_labels(members: Sequence[Predictions] | Sequence[Checkpoint]) -> None:
    """Check that scores of several checkpoints can be averaged.

    Raises: ValueError when one has other labels, or in another order, than the first.
    """
    first = members[0]
    for other in members[1:]:
        if other.labels.mids != first.labels.mids:
            raise ValueError(f"{other.name} and {first.name} have different labels, so their scores have no mean")


def _score(
    checkpoint: Checkpoint, rows: Iterator[tuple[int, Window]], clips: list[Clip], batch_windows: int
) -> tuple[np.ndarray, np.ndarray]:
    """Highest scores (clips, C) over each clip's windows, and the starts in seconds of the windows that have them."""
    scores = np.zeros((len(clips), len(checkpoint.labels)), np.float32)
    loudest = np.zeros_like(scores)
    while batch := list(islice(rows, batch_windows)):
        logits = window_logits(checkpoint, [window for _, window in batch])
        for (row, _), finite in zip(batch, np.isfinite(logits).all(1), strict=True):
            if not finite:
                raise ValueError(f"{checkpoint.name} does not give finite numbers for {clips[row].file}")
        heard = logits_to_scores(logits, checkpoint.config.activation)
        for (row, window), values in zip(batch, heard, strict=True):
            louder = values > scores[row]
            loudest[row, louder] = window.start_sample / checkpoint.config.features.sample_rate
            scores[row] = np.maximum(scores[row], values)
    return scores, loudest


def _windows(
    checkpoint: Checkpoint, clips: list[Clip], bad: BadFiles, advance: Callable[[], None]
) -> Iterator[tuple[int, Window]]:
    """(clip's row, window) of every clip that can be read; the others go to `bad`."""
    for row, windows in enumerate(map_ahead(partial(_read, checkpoint), clips, READING_THREADS)):
        if isinstance(windows, ClipError):
            bad.add_error(windows)
        else:
            for window in windows:
                yield row, window
        advance()


def _read(checkpoint: Checkpoint, clip: Clip) -> list[Window] | ClipError:
    try:
        waveform = read_clip(clip, checkpoint.config.features.sample_rate)
    except ClipError as error:
        return error
    return list(cut_windows([waveform], window_grid(checkpoint, None, None)))
