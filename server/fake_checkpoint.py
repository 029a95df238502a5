"""A checkpoint without weights, for the fake runtime: AudioSet's labels, ten-second windows side by side."""

from pathlib import Path

import numpy as np
import torch

from model.checkpoint import Checkpoint, CheckpointConfig, Golden
from model.features import AUDIOSET_FBANK, LogMel
from model.labels import audioset_labels
from server.runtimes.fake import FakeRuntime


def fake_checkpoint(name: str) -> Checkpoint:
    """A checkpoint whose golden logits are those of the fake runtime."""
    labels = audioset_labels()
    config = CheckpointConfig(
        name=Path(name).name,
        backbone="fake",
        backbone_config={},
        features=AUDIOSET_FBANK,
        window_seconds=10.0,
        hop_seconds=10.0,
    )
    sine = np.sin(2 * np.pi * 440 / 16_000 * np.arange(16_000)).astype(np.float32)
    logits = FakeRuntime(len(labels)).run(sine[None], np.array([len(sine)])).logits[0]
    return Checkpoint(
        config=config,
        network=torch.nn.Identity(),
        features=LogMel(config.features),
        labels=labels,
        golden=Golden(torch.from_numpy(sine), torch.from_numpy(logits)),
        weights_sha256="0" * 64,
        folder=Path(name),
        card="A fake model: its scores follow from the waveform's loudness and zero crossings and mean nothing.\n",
    )
