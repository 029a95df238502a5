"""What the tests of evaluation judge: tiny checkpoints, a corpus made in code, and predictions written by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from model import checkpoint
from model.checkpoint import Checkpoint, CheckpointConfig
from model.features import FeatureConfig
from model.labels import LabelSet
from model.registry import build_network
from model.training.clips import Clip
from model.training.predictions import Predictions

DOG, RAIN, SPEECH = "/m/0bt9lr", "/m/06mb1", "/m/09x0r"
MIDS = (DOG, RAIN, SPEECH)
SIZES = {
    "aum": {"classes": 3, "mels": 32, "frames": 32, "width": 16, "depth": 1},
    "cnn": {"classes": 3, "mels": 32, "frames": 32, "widths": [4, 8]},
}


def save_checkpoint(folder: Path, seed: int = 0, backbone: str = "aum", mids: Sequence[str] = MIDS) -> Path:
    """A network with random weights that hears windows of 0.3 s; batch norm's statistics are not those of a start."""
    torch.manual_seed(seed)
    config = CheckpointConfig(
        name=folder.name,
        backbone=backbone,
        backbone_config=SIZES[backbone],
        features=FeatureConfig("fbank", mels=32, frames=32, mean=-6.0, std=5.0),
        window_seconds=0.3,
        hop_seconds=0.2,
    )
    network = build_network(backbone, SIZES[backbone])
    network(torch.randn(4, 32, 32))
    state = {name: tensor * 3 if "head" in name else tensor for name, tensor in network.state_dict().items()}
    golden = checkpoint.golden_waveform(config)
    checkpoint.save(folder, config, state, LabelSet.from_mids(mids), golden, f"# {folder.name}\n", torch.float16)
    return folder


def load_tiny(folder: Path, seed: int = 0, backbone: str = "aum") -> Checkpoint:
    return checkpoint.load(save_checkpoint(folder, seed, backbone))


def save_corpus(folder: Path, seconds: float = 0.7, clips: int = 12) -> Path:
    """A manifest of noises: by turns a dog, rain, and a dog in the rain; every third clip is of fold 4."""
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    rows = ["file,labels,mids,source,split_group,fold,esc50_class"]
    for i in range(clips):
        soundfile.write(folder / f"{i}.wav", random.uniform(-0.5, 0.5, round(seconds * 16000)), 16000)
        mids = (DOG, RAIN, f"{DOG}|{RAIN}")[i % 3]
        rows.append(f"{i}.wav,x,{mids},made,{i},{4 if i % 3 == 0 else 1},")
    manifest = folder / "manifest.csv"
    manifest.write_text("\n".join(rows) + "\n")
    return manifest


def predictions(
    scores: Sequence[Sequence[float]] | np.ndarray,
    truth: Sequence[Sequence[float]] | np.ndarray,
    mids: Sequence[str] = MIDS,
    thresholds: dict[str, float] | None = None,
    name: str = "tiny",
) -> Predictions:
    """Predictions of clips that need no file."""
    wanted = np.asarray(truth, dtype=bool)
    clips = [
        Clip(Path(f"{row}.wav"), tuple(mid for mid, has in zip(mids, line, strict=True) if has), str(row), None, "")
        for row, line in enumerate(wanted)
    ]
    return Predictions(
        name=name,
        labels=LabelSet.from_mids(mids),
        clips=clips,
        scores=np.asarray(scores, dtype=np.float32),
        truth=wanted,
        loudest_seconds=np.zeros(wanted.shape, np.float32),
        window_seconds=0.3,
        thresholds=thresholds or {},
    )
