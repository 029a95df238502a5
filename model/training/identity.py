"""What makes a run this run and no other: a resumed one goes on only with what it began with.

text         the recipe, the classes in their order, the names of the clips to train on
checksums    what those names stand for: the labels of the clips, the weights of each teacher

States saved before there were checksums hold the text alone, and are compared by it alone.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from model.training.clips import Clip
from model.training.recipe import RecipeError, TrainingRecipe

UNBINDING = ("about", "machine", "save_steps", "save_minutes", "reading", "workers")
"""Recipe fields that may differ when a run goes on, for they change no number."""

STREAM_ORDER = ("machine", "reading", "workers")
"""Those of them that must not with reading: stream, whose order of clips follows from them."""

TRAINING, VALIDATION, TEACHER = "training", "validation", "teacher "
"""Names of checksums; a teacher's own name follows."""


@dataclass(frozen=True)
class Identity:
    """A run's identity; checksums are SHA-256 in hexadecimal, each under its name."""

    text: str
    checksums: Mapping[str, str] = field(default_factory=dict)


def identify(
    recipe: TrainingRecipe,
    micro_batch: int,
    mids: Iterable[str],
    training: list[Clip],
    validation: list[Clip],
    teachers: Mapping[str, str],
) -> Identity:
    """The identity of a run; `teachers` gives the checksum of each one's weights."""
    unbinding = set(UNBINDING) - set(STREAM_ORDER if recipe.reading == "stream" else ())
    fixed = {name: value for name, value in asdict(recipe).items() if name not in unbinding}
    files = "\n".join(clip.file.name for clip in training).encode(errors="surrogatepass")
    text = json.dumps([{**fixed, "micro_batch": micro_batch}, list(mids), hashlib.sha256(files).hexdigest()])
    checksums = {f"{TEACHER}{name}": weights for name, weights in teachers.items()}
    if recipe.task == "finetune" or recipe.sampling_kind != "shuffle":
        checksums[TRAINING] = checksum_labels(training)
    if recipe.task == "finetune":
        checksums[VALIDATION] = checksum_labels(validation)
    return Identity(text, checksums)


def recipe_and_mids(text: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The recipe's fields and the classes out of an identity's text."""
    recipe, mids, _ = json.loads(text)
    return recipe, tuple(mids)


def checksum_labels(clips: Iterable[Clip]) -> str:
    """SHA-256 of the clips' names, their labels and what ESC-50 calls them."""
    checksum = hashlib.sha256()
    for clip in clips:
        checksum.update(json.dumps([clip.file.name, clip.mids, clip.category]).encode())
    return checksum.hexdigest()


def check_same(state: Mapping[str, Any], identity: Identity, folder: Path) -> None:
    """Check that a state saved in `folder` is of this run.

    Raises: RecipeError, saying what is another.
    """
    if state["identity"] != identity.text:
        raise RecipeError(
            f"{folder} holds a run of another recipe, other labels or other clips; name another folder for this one"
        )
    saved = state.get("checksums", {})
    for name, checksum in identity.checksums.items():
        if saved.get(name, checksum) != checksum:
            raise RecipeError(f"{_changed(name)} since the run in {folder} began; restore them, or name another folder")


def _changed(name: str) -> str:
    if name == TRAINING:
        return "the labels of the clips to train on have changed"
    if name == VALIDATION:
        return "the clips to validate on, or their labels, have changed"
    return f"the weights of {name} have changed"
