"""Clips together with the labels of a network that is to tell them apart."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from model.labels import LabelSet
from model.training.clips import Clip, ManifestError


@dataclass(frozen=True)
class Corpus:
    """Labelled clips; the order of `labels` is that of the network's outputs."""

    clips: list[Clip]
    labels: LabelSet


def check_labels(corpus: Corpus) -> None:
    """Make sure that every clip's labels are the corpus's.

    Raises: ManifestError naming the first clip with another label, and how many there are.
    """
    known = set(corpus.labels.mids)
    strange = [(clip, mid) for clip in corpus.clips for mid in clip.mids if mid not in known]
    if strange:
        clip, mid = strange[0]
        more = f", and {len(strange) - 1} more like it" if len(strange) > 1 else ""
        raise ManifestError(f"{clip.file}: label {mid} is not among the {len(known)} labels{more}")


def find_mids(text: str, labels: LabelSet, path: Path, row: str) -> tuple[str, ...]:
    """The mids of labels that are separated by commas; each is a mid or a display name of `labels`.

    Raises: ManifestError naming the file, the row and the first label that is unknown.
    """
    with suppress(KeyError):  # some names hold commas: "Crowing, cock-a-doodle-doo"
        return (labels[labels.index_of(text)].mid,)
    names = [name for part in text.split(",") if (name := part.strip())]
    try:
        return tuple(labels[labels.index_of(name)].mid for name in names)
    except KeyError:
        unknown = next(name for name in names if name not in labels.mids and name not in labels.names)
        raise ManifestError(f"{path} {row}: label {unknown!r} is not among the {len(labels)} labels") from None
