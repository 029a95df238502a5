"""Which labels, statistics and activation belong to a published head, and reading labels from a CSV file."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from model.convert.errors import LabelsError, MissingFlagError
from model.features import (
    AUDIOSET_FBANK,
    ESC50_FBANK,
    SPEECH_COMMANDS_FBANK,
    VGGSOUND_FBANK,
    VOXCELEB_FBANK,
    FeatureConfig,
)
from model.labels import LabelSet, audioset_labels

SPEECH_COMMANDS = """
backward follow five bed zero on learn two house tree dog stop seven eight down six forward cat right visual four wow no
nine off three left marvin yes up sheila happy bird go one
""".split()  # noqa: SIM905
"""Order of the 35 words in AST's and SSAST's files: YuanGongND/ast:egs/speechcommands."""

ESC50 = """
dog rooster pig cow frog cat hen insects sheep crow rain sea_waves crackling_fire crickets chirping_birds water_drops
wind pouring_water toilet_flush thunderstorm crying_baby sneezing clapping breathing coughing footsteps laughing
brushing_teeth snoring drinking_sipping door_wood_knock mouse_click keyboard_typing door_wood_creaks can_opening
washing_machine vacuum_cleaner clock_alarm clock_tick glass_breaking helicopter chainsaw siren car_horn engine train
church_bells airplane fireworks hand_saw
""".split()  # noqa: SIM905
"""The data set's own target numbers 0 to 49 (karolpiczak/ESC-50)."""

NAME_COLUMNS = ("display_name", "name", "label", "category", "class")


@dataclass(frozen=True)
class Dataset:
    """What a network fine-tuned on a data set needs around it; `labels` is None where a CSV must give them."""

    classes: int
    features: FeatureConfig
    activation: Literal["sigmoid", "softmax"]
    labels: Callable[[], LabelSet] | None = None


DATASETS = {
    "audioset": Dataset(527, AUDIOSET_FBANK, "sigmoid", audioset_labels),
    "esc50": Dataset(50, ESC50_FBANK, "softmax", lambda: LabelSet.from_mids(ESC50)),
    "speech-commands": Dataset(35, SPEECH_COMMANDS_FBANK, "sigmoid", lambda: LabelSet.from_mids(SPEECH_COMMANDS)),
    "vggsound": Dataset(309, VGGSOUND_FBANK, "sigmoid"),
    "voxceleb": Dataset(1251, VOXCELEB_FBANK, "softmax"),
}


def choose_dataset(name: str | None, classes: int) -> Dataset:
    """Find a data set by name, else by its number of classes; a network without classes was trained on AudioSet.

    Raises:
        MissingFlagError: the name is unknown, or no data set has so many classes.
    """
    if name is not None and name not in DATASETS:
        raise MissingFlagError(f"--dataset {name} is unknown; choose from {', '.join(DATASETS)}")
    if name is not None or classes == 0:
        return DATASETS[name or "audioset"]
    for dataset in DATASETS.values():
        if dataset.classes == classes:
            return dataset
    raise MissingFlagError(
        f"no known data set has {classes} classes; say --labels, and with --dataset whose statistics the log-mel takes "
        f"({', '.join(DATASETS)})"
    )


def read_labels(path: Path) -> LabelSet:
    """Read labels from a CSV file, in the order of its rows or of its `index` column.

    The header names the columns as AudioSet's class_labels_indices.csv does: `display_name` (or name, label, category,
    class), and where there are any, `mid` and `index`.

    Raises:
        LabelsError: the file cannot be read, lacks the column, or has gaps or repeats.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelsError(f"{path} cannot be read as a CSV file of labels: {error}") from error
    column = next((name for name in NAME_COLUMNS if rows and name in rows[0]), None)
    if column is None:
        raise LabelsError(f"{path} has no rows or no column called {', '.join(NAME_COLUMNS)}")
    rows = _in_order(rows, path)
    names = [(row[column] or "").strip() for row in rows]
    mids = [(row.get("mid") or name).strip() for row, name in zip(rows, names, strict=True)]
    if "" in names or len(set(mids)) < len(mids):
        raise LabelsError(f"{path} has empty or repeated labels")
    known = LabelSet.from_mids(mids)
    return LabelSet(tuple(replace(label, name=name) for label, name in zip(known, names, strict=True)))


def _in_order(rows: list[dict[str, str]], path: Path) -> list[dict[str, str]]:
    if "index" not in rows[0]:
        return rows
    try:
        rows = sorted(rows, key=lambda row: int(row["index"]))
    except (TypeError, ValueError) as error:
        raise LabelsError(f"{path} has an index that is not a whole number") from error
    if [int(row["index"]) for row in rows] != list(range(len(rows))):
        raise LabelsError(f"{path} does not number its labels 0, 1, 2, ...")
    return rows
