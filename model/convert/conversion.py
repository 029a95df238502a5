"""`hark convert`: a published file to one of our checkpoint folders.

    file or folder → tensors → renamed state and config → + front end, labels, golden clip, card → checkpoint folder

Nothing is written before everything has been checked, and the folder appears at once or not at all.
"""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from model import checkpoint
from model.convert import aum, hf_ast, official_ast, ssam, ssast
from model.convert.errors import ConversionError, LabelsError, MissingFlagError
from model.convert.geometry import Hints
from model.convert.label_sets import Dataset, choose_dataset, read_labels
from model.convert.reading import Source, read_source
from model.convert.renaming import Converted
from model.features import SSAM_LOG_MEL, FeatureConfig
from model.labels import LabelSet, audioset_labels

SSAM_CHUNKS = 5
"""Chunks of 2 seconds in a window of a converted SSAM: 10 seconds, as in AudioSet's clips."""


@dataclass(frozen=True)
class Format:
    """One value of `--from`; AST's training code centres each waveform, Hugging Face's extractor does not."""

    title: str
    licence: str
    centres_waveform: bool
    convert: Callable[[Source, Hints], Converted]


FORMATS = {
    "hf-ast": Format("Hugging Face's AST (MIT/ast-finetuned-*)", "BSD-3-Clause", False, hf_ast.convert),
    "ast": Format("AST (YuanGongND/ast)", "BSD-3-Clause", True, official_ast.convert),
    "aum": Format("AuM (kaistmm/Audio-Mamba-AuM)", "BSD-3-Clause", True, aum.convert),
    "ssam": Format("SSAM (SarthakYadav/audio-mamba-official)", "MIT", False, ssam.convert),
    "ssast": Format("SSAST (YuanGongND/ssast)", "BSD-3-Clause", True, ssast.convert),
}


@dataclass(frozen=True)
class Flags:
    """What a user may say about a file beyond its format: hints on the network, and what to put around it."""

    hints: Hints = field(default_factory=Hints)
    labels: Path | None = None
    dataset: str | None = None
    activation: Literal["sigmoid", "softmax"] | None = None
    name: str | None = None


def convert_checkpoint(format_name: str, path: Path, folder: Path, flags: Flags | None = None) -> Converted:
    """Convert a published file and save it as a checkpoint folder; the answer tells what was left out on purpose.

    Raises:
        ConversionError: the file cannot be converted; see `model/convert/errors.py`.
        CheckpointError, OSError: the folder cannot be written.
    """
    if format_name not in FORMATS:
        raise MissingFlagError(f"--from {format_name} is unknown; choose from {', '.join(FORMATS)}")
    flags = flags or Flags()
    source = read_source(path)
    if format_name != "hf-ast":  # elsewhere the JSON files beside it, in a folder of downloads say, are not its own
        source = replace(source, config=None, preprocessor=None)
    converted = FORMATS[format_name].convert(source, flags.hints)
    labels = find_labels(converted, source, flags)
    dataset = find_dataset(source, flags, len(labels))
    features = front_end(converted, source, dataset, FORMATS[format_name].centres_waveform)
    seconds = features.window_samples / features.sample_rate
    config = checkpoint.CheckpointConfig(
        name=flags.name or folder.name,
        backbone=converted.backbone,
        backbone_config=asdict(converted.config),
        features=features,
        window_seconds=seconds,
        hop_seconds=seconds,
        activation=flags.activation or find_activation(source, dataset),
    )
    card = write_card(config, format_name, source)
    checkpoint.save(folder, config, converted.state, labels, checkpoint.golden_waveform(config), card)
    return converted


def find_labels(converted: Converted, source: Source, flags: Flags) -> LabelSet:
    """Find the labels of a head: from the CSV given, else from config.json, else by the number of classes.

    Raises:
        LabelsError: their number is not that of the head's outputs. MissingFlagError: nothing tells them.
    """
    classes = converted.config.classes
    labels = read_labels(flags.labels) if flags.labels else _labels_in_config(source)
    if labels is None and classes == 0:
        return LabelSet.from_mids([])
    if labels is None:
        dataset = choose_dataset(flags.dataset, classes)
        if dataset.labels is None:
            raise MissingFlagError(f"the names of these {classes} classes do not come with Hark; say --labels")
        labels = dataset.labels()
    if len(labels) != classes:
        raise LabelsError(f"the head has {classes} outputs but there are {len(labels)} labels")
    return labels


def find_dataset(source: Source, flags: Flags, classes: int) -> Dataset:
    """Find the data set whose statistics and activation a network wants; one that brings its own takes AudioSet's rest.

    Raises:
        MissingFlagError: neither a flag nor the number of classes tells it.
    """
    try:
        return choose_dataset(flags.dataset, classes)
    except MissingFlagError:
        if flags.dataset is not None or source.preprocessor is None:
            raise
        return choose_dataset("audioset", classes)


def find_activation(source: Source, dataset: Dataset) -> Literal["sigmoid", "softmax"]:
    """Tell how logits become scores: as config.json says, else as the data set was trained."""
    problem = (source.config or {}).get("problem_type")
    if problem is None:
        return dataset.activation
    return "softmax" if problem == "single_label_classification" else "sigmoid"


def front_end(converted: Converted, source: Source, dataset: Dataset, centres_waveform: bool) -> FeatureConfig:
    """Make the front end of a network: its data set's statistics, or those that came with it, at its own size.

    Raises:
        ConversionError: preprocessor_config.json asks for what the recipe does not do.
    """
    config = converted.config
    if converted.backbone == "ssam":
        return replace(SSAM_LOG_MEL, mels=config.mels, frames=config.frames * SSAM_CHUNKS)
    features = replace(
        dataset.features, mels=config.mels, frames=config.frames, subtract_waveform_mean=centres_waveform
    )
    said = source.preprocessor or {}
    if not said.get("do_normalize", True):
        raise ConversionError("preprocessor_config.json turns normalisation off, which AST's front end does not do")
    try:
        mean, std = float(said.get("mean", features.mean)), float(said.get("std", features.std))
        return replace(features, mean=mean, std=std, sample_rate=said.get("sampling_rate", features.sample_rate))
    except (TypeError, ValueError) as error:
        raise ConversionError(f"preprocessor_config.json does not suit AST's front end: {error}") from error


def write_card(config: checkpoint.CheckpointConfig, format_name: str, source: Source) -> str:
    """Write the model card of a converted checkpoint: where it came from, and under which licence."""
    origin = FORMATS[format_name]
    sha256 = hashlib.sha256(source.path.read_bytes()).hexdigest()
    return (
        f"# {config.name}\n\n"
        f"Converted by `hark convert --from {format_name}` from `{source.path.name}` (sha256 `{sha256}`).\n\n"
        f"- Origin: {origin.title}; its code is under {origin.licence}, see there for the terms of the weights.\n"
        f"- Network: {config.backbone}; window {config.window_seconds:.2f} s; scores by {config.activation}.\n"
    )


def _labels_in_config(source: Source) -> LabelSet | None:
    """Labels in a Hugging Face config.json; placeholders like LABEL_0 do not count."""
    named: Any = (source.config or {}).get("id2label")
    if not isinstance(named, dict) or not named:
        return None
    try:
        names = [str(named[key]) for key in sorted(named, key=int)]
    except ValueError as error:
        raise LabelsError("config.json numbers its labels with something else than whole numbers") from error
    if all(name.startswith("LABEL_") for name in names):
        return None
    audioset = audioset_labels()
    return audioset if names == list(audioset.names) else LabelSet.from_mids(names)
