"""The sounds of a run: from where a corpus is to clips with waveforms, to train on and to validate."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from model.labels import LabelSet
from model.training.bad_files import BadFiles
from model.training.batches import Sounds
from model.training.clips import Clip, ManifestError
from model.training.corpus import read_corpus
from model.training.data import load_waveforms, split
from model.training.recipe import TrainingRecipe
from model.training.waveforms import open_waveforms


@dataclass(frozen=True)
class Place:
    """Where the data of a run is on this machine; a second corpus for validation leaves the first one whole."""

    manifest: Path
    clips_folder: Path | None = None
    class_labels: Path | None = None
    validation: Path | None = None


@dataclass(frozen=True)
class Parts:
    """Clips to train on and to validate, not opened yet, and the labels of both."""

    labels: LabelSet
    training: list[Clip]
    validation: list[Clip]


def read_parts(recipe: TrainingRecipe, place: Place) -> Parts:
    """Read the corpora; fold 0 as validation fold means: train on everything.

    Raises: ManifestError if they do not suit the recipe; OSError.
    """
    corpus = read_corpus(place.manifest, clips_folder=place.clips_folder, class_labels=place.class_labels)
    if place.validation is not None:
        other = read_corpus(place.validation, clips_folder=place.clips_folder, labels=corpus.labels)
        parts = Parts(corpus.labels, [clip for clip in corpus.clips if clip.part != "testing"], other.clips)
    elif recipe.validation_fold:
        _check_fold(corpus.clips, recipe.validation_fold, place.manifest)
        parts = Parts(corpus.labels, *split(corpus.clips, recipe.validation_fold, recipe.validation_share))
    else:
        parts = Parts(corpus.labels, [clip for clip in corpus.clips if clip.part != "testing"], [])
    if recipe.reading == "stream" and any(clip.stored is None for clip in parts.training):
        raise ManifestError(f"{place.manifest} is no folder of shards, which reading: stream needs; see `hark pack`")
    _check_size(parts.training, recipe, place.manifest)
    return parts


def open_sounds(
    recipe: TrainingRecipe, place: Place, parts: Parts, sample_rate: int, report: Callable[[str], None]
) -> tuple[Sounds, Sounds]:
    """(training, validation) with their waveforms; files that cannot be read are named and counted.

    Raises: ManifestError if too few clips are left, or one is unreadable and the recipe says to stop.
    """
    bad = BadFiles(recipe.on_bad_file, report)
    sounds = []
    for clips in (parts.training, parts.validation):
        if recipe.reading == "memory":
            sounds.append(Sounds(*load_waveforms(clips, sample_rate, report, bad), parts.labels))
        else:
            sounds.append(Sounds(*open_waveforms(clips, sample_rate, bad), parts.labels))
    bad.summarise(len(parts.training) + len(parts.validation))
    training, validation = sounds
    _check_size(training.clips, recipe, place.manifest)
    report(f"{len(training.clips)} clips to train on, {len(validation.clips)} to validate, {len(parts.labels)} labels")
    return training, validation


def _check_fold(clips: list[Clip], fold: int, manifest: Path) -> None:
    folds = sorted({clip.fold for clip in clips if clip.fold is not None})
    if folds and fold not in folds:
        raise ManifestError(
            f"{manifest} has no fold {fold} to validate on, only {', '.join(map(str, folds))}; with validation_fold 0 "
            "all clips are trained on"
        )


def _check_size(clips: list[Clip], recipe: TrainingRecipe, manifest: Path) -> None:
    if len(clips) < recipe.batch:
        raise ManifestError(f"{manifest} leaves {len(clips)} clips to train on, fewer than a batch of {recipe.batch}")
