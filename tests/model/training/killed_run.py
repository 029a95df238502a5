"""A run that kills itself without warning: python -m tests.model.training.killed_run MANIFEST FOLDER STEP."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from model.training.batches import Feed
from model.training.finetune import finetune
from model.training.losses import Batch
from model.training.recipe import Recipe
from tests.model.training.tiny_runs import quiet, tiny_recipe


def make_recipe() -> Recipe:
    """A run of twelve steps with dropout in the network, saved after every third; the states vary in every way."""
    cnn = {"mels": 32, "frames": 32, "widths": [8, 8], "dropout": 0.5}
    return tiny_recipe(3, backbone="cnn", backbone_config=cnn, save_steps=3, keep="mean", mean_epochs=2)


def main(manifest: str, folder: str, step: int) -> None:
    """Train, and die by SIGKILL when step `step` asks for its batch."""
    taken = Feed._batches

    def deadly(self: Feed, epoch: int, *arguments: object) -> Iterator[Batch]:
        for number, batch in enumerate(taken(self, epoch, *arguments), start=epoch * self.steps):  # type: ignore[arg-type]
            if number == step:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    Feed._batches = deadly  # type: ignore[method-assign]
    finetune(make_recipe(), Path(manifest), Path(folder), quiet)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
