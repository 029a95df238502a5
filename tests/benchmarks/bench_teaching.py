"""How well a class is heard that was taught from a few clips, on clips that teaching and model have not seen.

python -m tests.benchmarks.bench_teaching MANIFEST [--model aum-tiny] [--fold 4] [--clips 5]

MANIFEST is a CSV of ESC-50's clips as training takes it (docs/training-data.md), with `fold` and `esc50_class`. Every
class is taught from the first clips of the fold, whole or cut to their loudest second, and from no negatives but Hark's
own; the fold's other clips, but for those negatives, are the test.
"""

import argparse
import random
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from model.audio import read_waveform
from model.background import FOLDER, background_clips, background_waveforms, teaching_windows
from model.checkpoint import Checkpoint, load
from model.pipeline import window_outputs
from model.registry import find_checkpoint
from model.teaching import Clip, average_precision, teach
from model.training.data import read_manifest
from model.windows import Window
from tests.benchmarks.timing import print_table


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--model", default="aum-tiny")
    parser.add_argument("--fold", type=int, default=4)
    parser.add_argument("--clips", type=int, nargs="+", default=[3, 5])
    arguments = parser.parse_args()
    files = files_by_class(arguments.manifest, arguments.fold)
    rows = measure(load(find_checkpoint(arguments.model)), files, arguments.clips)
    print_table(("taught from", "recall", "false alarms", "average precision", "told apart"), rows)


def files_by_class(manifest: Path, fold: int) -> dict[str, list[Path]]:
    """The fold's clips of each class, in an order that is always the same, without the bundled negatives."""
    bundled = set(re.findall(r"`(\d-[\w-]+)`", (FOLDER / "README.md").read_text()))
    found: dict[str, list[Path]] = defaultdict(list)
    for clip in read_manifest(manifest):
        if clip.fold == fold and clip.category and clip.file.stem not in bundled:
            found[clip.category].append(clip.file)
    for files in found.values():
        random.Random(0).shuffle(files)
    return dict(found)


def measure(checkpoint: Checkpoint, files: dict[str, list[Path]], counts: list[int]) -> list[tuple[str, ...]]:
    """One row for each number of clips, whole and cut to a second."""
    config = checkpoint.config
    background = background_clips(
        embed(checkpoint, background_waveforms(config.features.sample_rate, config.window_samples))
    )
    whole = {path: embed_clip(checkpoint, path, None) for paths in files.values() for path in paths}
    rows = []
    for seconds, name in ((None, "clips of 5 s"), (1.0, "clips of 1 s")):
        for count in counts:
            marks = [one_class(checkpoint, files, label, whole, background, count, seconds) for label in files]
            means = np.mean([mark for mark in marks if mark], axis=0)
            rows.append((f"{count} {name}", *(f"{mean:.2f}" for mean in means)))
    return rows


def one_class(
    checkpoint: Checkpoint,
    files: dict[str, list[Path]],
    label: str,
    whole: dict[Path, Clip],
    background: list[Clip],
    count: int,
    seconds: float | None,
) -> tuple[float, ...]:
    """Recall, false alarms, average precision and verdict of one class; nothing where no clip is left to test."""
    taught, tested = files[label][:count], files[label][count:]
    if not tested:
        return ()
    head, quality = teach([embed_clip(checkpoint, path, seconds) for path in taught], background)
    others = [path for other, paths in files.items() if other != label for path in paths]
    inside, outside = (
        np.array([1 / (1 + np.exp(-head.logits(whole[path].embeddings).max())) for path in paths])
        for paths in (tested, others)
    )
    found, alarms = (inside >= quality.threshold).mean(), (outside >= quality.threshold).mean()
    return float(found), float(alarms), average_precision(inside, outside), float(quality.told_apart)


def embed_clip(checkpoint: Checkpoint, path: Path, seconds: float | None) -> Clip:
    """A clip as teaching embeds it, or its loudest seconds."""
    config = checkpoint.config
    if seconds is None:
        return Clip(embed(checkpoint, teaching_windows(path, config.features.sample_rate, config.window_samples)))
    waveform = read_waveform(path, config.features.sample_rate)
    samples = round(seconds * config.features.sample_rate)
    start = int(np.convolve(waveform.astype(float) ** 2, np.ones(samples), "valid").argmax())
    cut = waveform[start : start + samples]
    return Clip(embed(checkpoint, [cut, np.resize(cut, config.window_samples)]))


def embed(checkpoint: Checkpoint, waveforms: list[np.ndarray]) -> np.ndarray:
    """Embeddings (W, D) of windows' waveforms."""
    return np.concatenate([window_outputs(checkpoint, [Window(0, 0, waveform)])[1] for waveform in waveforms])


if __name__ == "__main__":
    main()
