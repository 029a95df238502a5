"""The `hark` commands that judge checkpoints: evaluate, fit-thresholds, average.

They call `model/training`, which is imported where a command needs it.
"""

import json
import os
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.console import CommandError, as_command_errors, long_progress, print_note, print_table, write_out

if TYPE_CHECKING:
    from model.checkpoint import Checkpoint
    from model.training.clips import Clip
    from model.training.evaluate import Evaluation, LabelMeasures
    from model.training.predictions import Predictions


LABEL_COLUMNS = ("clips", "AP", "AUC", "threshold", "precision", "recall", "F1")


class Part(StrEnum):
    """Which clips of a manifest count."""

    TRAINING = "training"
    VALIDATION = "validation"
    TESTING = "testing"


class TextFormat(StrEnum):
    """How measures are written."""

    TABLE = "table"
    JSON = "json"


Checkpoints = Annotated[list[str], typer.Argument(metavar="CHECKPOINT...", help="Models' names or checkpoint folders.")]
Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="Labelled clips: a CSV manifest or other corpus.")]
ClipsFolder = Annotated[Path | None, typer.Option("--clips", help="Where the clips of AudioSet's segment lists are.")]
Fold = Annotated[int | None, typer.Option(min=0, help="Only clips of this fold.")]
Split = Annotated[
    Part | None,
    typer.Option(help="Only the clips that training holds out, with --fold (4 unless given), or the others."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 and so on.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at the first clip that cannot be read.")]


def add_commands(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(evaluate)
    app.command("fit-thresholds")(fit_thresholds)
    app.command()(average)


def evaluate(
    checkpoints: Checkpoints,
    manifest: Manifest,
    fold: Fold = None,
    split: Split = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Also measure the mean of their scores.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the report: a page, and all numbers as JSON.")] = None,
    output: Annotated[TextFormat, typer.Option("--format", help="What to write.")] = TextFormat.TABLE,
    per_label: Annotated[bool, typer.Option("--per-label", help="Add a table of every label.")] = False,
    strict: Strict = False,
    device: Device = "auto",
    clips: ClipsFolder = None,
) -> None:
    """Measure checkpoints on labelled clips: ranking, accuracy and calibration, per label, alone or together."""
    from model.training.evaluate import evaluate as measure
    from model.training.predictions import check_same_labels
    from model.training.predictions import ensemble as average_scores
    from model.training.report import write_report

    if ensemble and len(checkpoints) < 2:
        raise typer.BadParameter("--ensemble needs at least two checkpoints")
    folders = [_find(name) for name in checkpoints]
    with as_command_errors():  # whatever is wrong shows before the first clip is scored
        loaded = [_load(folder, device) for folder in folders]
        if ensemble:
            check_same_labels(loaded)
        if out:
            out.mkdir(parents=True, exist_ok=True)
            if not os.access(out, os.W_OK):
                raise CommandError(f"{out} cannot be written; name another folder for the report")
        chosen = _choose(manifest, clips, fold, split)
        names = _distinct(checkpoints)
        scored = [_predict(each, chosen, name, strict) for each, name in zip(loaded, names, strict=True)]
        if ensemble:
            scored.append(average_scores(scored))
        measured = [measure(predictions) for predictions in scored]
    _write_measures(measured, output, per_label)
    if out:
        source = _in_words(manifest, fold, split)
        members = measured[:-1] if ensemble else []
        reported = [-1] if ensemble else range(len(scored))
        for index in reported:
            folder = out if len(reported) == 1 else out / measured[index].name
            with as_command_errors():
                page = write_report(folder, scored[index], measured[index], source, members)
            print_note(f"wrote {page}")


def fit_thresholds(
    checkpoint: Annotated[str, typer.Argument(help="The model's name or checkpoint folder; it is changed.")],
    manifest: Manifest,
    fold: Fold = None,
    split: Split = None,
    precision: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Most recall at this precision, instead of the best F1.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would gain.")] = False,
    strict: Strict = False,
    device: Device = "auto",
    clips: ClipsFolder = None,
) -> None:
    """Fit each label's threshold on clips that were held out from training, and store it in the checkpoint."""
    from model.training.report import number
    from model.training.thresholds import describe_fit, split_half_gain, store_thresholds
    from model.training.thresholds import fit_thresholds as fit

    if precision == 0:
        raise typer.BadParameter("--precision must be above 0")
    folder = _find(checkpoint)
    if not dry_run and not os.access(folder, os.W_OK):
        raise CommandError(f"{folder} cannot be changed; copy the checkpoint to a folder of yours, and name that")
    with as_command_errors():
        loaded = _load(folder, device)
        predictions = _predict(loaded, _choose(manifest, clips, fold, split), checkpoint, strict)
        fitted = fit(predictions, precision)
        gain = split_half_gain(predictions, precision)
    if gain.measured:
        print_table(
            ("fitted on one half, measured on the other", "default", "fitted"),
            [(name, number(gain.default[name]), number(gain.fitted[name])) for name in gain.default],
        )
    else:
        print_note("what it gains cannot be measured: there are too few recording groups to split")
    if fitted.unreached:
        print_note(f"never reach a precision of {precision:g}: {', '.join(fitted.unreached)}")
    if fitted.without_clips:
        print_note(f"{len(fitted.without_clips)} labels have no clip here and keep the default")
    if not dry_run:
        note = describe_fit(fitted, gain, _in_words(manifest, fold, split), len(predictions.clips), precision)
        with as_command_errors():
            store_thresholds(folder, fitted.per_class, note)
        print_note(f"stored {len(fitted.per_class)} thresholds in {folder}")


def average(
    checkpoints: Checkpoints,
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The checkpoint folder to write.")],
    manifest: Annotated[
        Path | None, typer.Option(help="Training clips, for the statistics of networks with batch norm.")
    ] = None,
) -> None:
    """Average the weights of several checkpoints of one network into a new one."""
    from model.training.averaging import average_checkpoints, has_batch_norm
    from model.training.corpus import read_corpus

    folders = [_find(name) for name in checkpoints]
    if len(folders) < 2:
        raise typer.BadParameter("name at least two checkpoints before OUT")
    with as_command_errors():
        members = [_load(each, "cpu") for each in folders]
        clips = read_corpus(manifest).clips if manifest and has_batch_norm(members[0].network) else []
        with long_progress(len(clips), "gathering statistics") as advance:
            average_checkpoints(members, folder, clips, print_note, advance)
    print_note(f"wrote {folder}")


def _find(name: str) -> Path:
    from model.registry import UnknownModelError, find_checkpoint

    try:
        return find_checkpoint(name)
    except UnknownModelError as error:
        raise typer.BadParameter(str(error)) from error


def _load(folder: Path, device: str) -> "Checkpoint":
    from model.checkpoint import load
    from server.served_models import ServingError, choose_device

    try:
        return load(folder, choose_device(device))
    except ServingError as error:
        raise typer.BadParameter(str(error)) from error


def _choose(manifest: Path, clips: Path | None, fold: int | None, split: Part | None) -> list["Clip"]:
    from model.training.corpus import read_corpus
    from model.training.predictions import choose_clips

    if split is Part.TESTING and fold is not None:
        raise typer.BadParameter("--split testing is an official part, which has no folds; leave out --fold")
    return choose_clips(read_corpus(manifest, clips_folder=clips).clips, fold, split and split.value)


def _predict(checkpoint: "Checkpoint", clips: list["Clip"], name: str, strict: bool) -> "Predictions":
    from model.training.predictions import predict

    with long_progress(len(clips), f"scoring with {name}") as advance:
        return predict(checkpoint, clips, name=name, strict=strict, report=print_note, advance=advance)


def _distinct(checkpoints: Sequence[str]) -> list[str]:
    """Short names for columns and folders: the last part of each path, all numbered where that is not enough."""
    names = [Path(name).resolve().name for name in checkpoints]
    if len(set(names)) == len(names):
        return names
    return [f"{name}-{place}" for place, name in enumerate(names, start=1)]


def _in_words(manifest: Path, fold: int | None, split: Part | None) -> str:
    """The chosen clips, for reports and cards."""
    words = [manifest.name, f"fold {fold}" if fold is not None else "", f"({split.value})" if split else ""]
    return " ".join(word for word in words if word)


def _write_measures(evaluations: Sequence["Evaluation"], output: TextFormat, per_label: bool) -> None:
    from model.training.evaluate import MEASURES, to_rows
    from model.training.report import number

    if output is TextFormat.JSON:
        write_out(json.dumps([to_rows(each) for each in evaluations], indent=2, ensure_ascii=False) + "\n")
        return
    rows = [
        (words, *(number(each.measures[name]) if name in each.measures else "" for each in evaluations))
        for name, words in MEASURES.items()
        if any(name in each.measures for each in evaluations)
    ]
    counts = [("clips", *(str(each.clips) for each in evaluations))]
    print_table(("measure", *(each.name for each in evaluations)), counts + rows)
    for each in evaluations:
        if per_label:
            print_table((each.name, *LABEL_COLUMNS), map(_label_cells, each.labels))
        if each.absent:
            print_note(f"{each.name}: {len(each.absent)} labels have no clip here and count in no mean")


def _label_cells(row: "LabelMeasures") -> tuple[str, ...]:
    from model.training.report import number

    ranking = row.average_precision, row.roc_auc
    at_threshold = row.threshold, row.precision, row.recall, row.f1
    return row.label, str(row.clips), *map(number, ranking), *map(number, at_threshold)
