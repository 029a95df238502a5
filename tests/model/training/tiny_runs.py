"""Runs that take a second: a corpus of sines and noises, and recipes of tiny networks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from model import checkpoint
from model.checkpoint import Checkpoint, CheckpointConfig
from model.features import FeatureConfig
from model.labels import LabelSet
from model.registry import build_network
from model.training.recipe import PretrainRecipe, Recipe

FBANK = {"kind": "fbank", "mels": 32, "frames": 32, "mean": -6.0, "std": 5.0}
AUM = {"mels": 32, "frames": 32, "width": 16, "depth": 1}
AST = {"mels": 32, "frames": 32, "width": 16, "depth": 2, "heads": 2, "stride_mels": 16, "stride_frames": 16}
SSAM = {"mels": 32, "frames": 32, "width": 16, "depth": 1, "expand": 2, "state_size": 4, "patch_mels": 16}
SSAST = {"mels": 32, "frames": 32, "width": 16, "depth": 1, "heads": 2, "patch_mels": 8, "patch_frames": 8}
SSAST |= {"stride_mels": 8, "stride_frames": 8}


def write_corpus(folder: Path, clips: int = 40, seconds: float = 0.3) -> Path:
    """A manifest where sines are "Dog" and noises "Rain"; a fifth of it is fold 4."""
    random = np.random.default_rng(0)
    rows = ["file,labels,mids,source,split_group,fold,esc50_class"]
    samples = round(seconds * 16000)
    for i in range(clips):
        sine = np.sin(np.arange(samples) / 16000 * 2 * np.pi * random.uniform(300, 900))
        waveform = sine if i % 2 else random.standard_normal(samples) * 0.3
        soundfile.write(folder / f"{i}.wav", waveform * 0.5, 16000)
        mid, name = ("/m/0bt9lr", "dog") if i % 2 else ("/m/06mb1", "rain")
        rows.append(f"{i}.wav,{name},{mid},made,{i},{4 if i % 5 == 0 else 1},{name}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def tiny_recipe(epochs: int = 2, **changes: Any) -> Recipe:
    """A fine-tuning recipe of four steps per epoch."""
    return Recipe(**{**_common(epochs), "mixup_probability": 0.2, **changes})


def tiny_pretraining(epochs: int = 2, **changes: Any) -> PretrainRecipe:
    """A pre-training recipe of five steps per epoch."""
    common = {**_common(epochs), "backbone": "ssam", "backbone_config": SSAM, "validation_fold": 0}
    return PretrainRecipe(**{**common, "mixup_probability": 0.0, **changes})


def _common(epochs: int) -> dict[str, Any]:
    return {
        "name": "tiny",
        "backbone": "aum",
        "backbone_config": AUM,
        "features": FBANK,
        "window_seconds": 0.3,
        "epochs": epochs,
        "batch": 8,
        "learning_rate": 1e-2,
        "mask_mels": 4,
        "mask_frames": 4,
        "low_pass_share": 0.0,
        "precision": "float32",
    }


LABELS = LabelSet.from_mids(["/m/06mb1", "/m/0bt9lr"])


def save_teacher(folder: Path, labels: LabelSet = LABELS, seed: int = 0, **features: Any) -> Checkpoint:
    """An untrained tagger of the corpus's sounds, with whatever front end."""
    torch.manual_seed(seed)
    front = FeatureConfig(**{**FBANK, **features})
    shape = {**AUM, "mels": front.mels, "frames": front.frames, "classes": len(labels)}
    config = CheckpointConfig("teacher", "aum", shape, front, 0.3, 0.3)
    state = build_network("aum", shape).state_dict()
    checkpoint.save(folder, config, state, labels, checkpoint.golden_waveform(config), "# teacher")
    return checkpoint.load(folder)


def quiet(_: str) -> None:
    """Takes the lines of a run."""


def read_log(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's epochs, without their times."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
