"""The papers' ablations at small scale, each a few overrides of a small recipe, measured into one table.

    python -m model.training.ablations MANIFEST [--work FOLDER] [--out docs/ablations.md]

It takes the ESC-50 clips of a CSV manifest, goes on where it was stopped, and skips the rows that are finished.
"""

import argparse
import csv
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from model.audio import read_waveform
from model.features import FeatureConfig, LogMel
from model.registry import build_network
from model.training.ablation_rows import GROUPS, Group, Row
from model.training.clips import Clip, ManifestError
from model.training.data import read_manifest
from model.training.finetune import Measure, finetune
from model.training.metrics import esc50_top1, mean_average_precision
from model.training.pretrain import pretrain
from model.training.recipe import PretrainRecipe, Recipe, read_recipe
from model.training.run_state import kept_weights, read_state
from model.training.sounds import Place, open_sounds, read_parts
from model.training.workbench import check_recipe
from model.whole_files import write_whole

RECIPES = Path(__file__).parent / "recipes"
SAMPLE_RATE = 16000


@dataclass(frozen=True)
class Table:
    """The work of one table: its corpus, its folder, and a size to rehearse at."""

    manifest: Path
    work: Path
    epochs: int = 0
    report: Callable[[str], None] = print

    def fill(self, rows: Iterable[Row]) -> None:
        """Run every row that has no result yet, ensembles included; each result is kept at once."""
        for row in rows:
            if result_of(self.work, row) is not None:
                continue
            self.report(f"== {row.name}")
            started = time.monotonic()
            result = self._average(row) if row.members else self._train(row)
            result["seconds"] = round(time.monotonic() - started)
            folder = self._folder(row)
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / "result.json", json.dumps(result).encode())

    def _train(self, row: Row) -> dict[str, Any]:
        folder, result = self._folder(row), dict[str, Any]()
        overrides = list(row.overrides)
        if row.pretrain:
            first = self._recipe(row.pretrain, [*overrides, *row.pretrain_overrides])
            assert isinstance(first, PretrainRecipe)
            run = pretrain(first, self.manifest, folder / "pretrain", self.report)
            result["pretrain_loss"] = run.measured.get("validation_loss")
            overrides.append(f"initial={folder / 'pretrain'}")
        recipe = self._recipe(row.recipe, overrides)
        assert isinstance(recipe, Recipe)
        run = finetune(recipe, self.manifest, folder / "finetune", self.report)
        parameters = sum(parameter.numel() for parameter in run.network.parameters())
        return {**result, **run.measured, "parameters": parameters}

    def _recipe(self, name: str, overrides: list[str]) -> Recipe | PretrainRecipe:
        smaller = [f"epochs={self.epochs}"] if self.epochs else []
        recipe = read_recipe(RECIPES / f"{name}.yaml", [*overrides, *smaller])
        assert isinstance(recipe, Recipe | PretrainRecipe)
        return recipe

    def _average(self, row: Row) -> dict[str, Any]:
        """Measure the mean of the members' scores on the validation clips."""
        members = [member for group in GROUPS for member in group.rows if member.name in row.members]
        scores, validation = [], None
        for member in members:
            recipe = self._recipe(member.recipe, list(member.overrides))
            assert isinstance(recipe, Recipe)
            measure, network = self._trained(recipe, self._folder(member) / "finetune")
            validation = measure.validation
            scores.append(1 / (1 + np.exp(-measure.logits(network)[1])))
        assert validation is not None
        mean, truth = np.mean(scores, axis=0), validation.targets.numpy()
        top1 = esc50_top1(mean, validation.clips, list(validation.labels.mids))
        return {"map": round(mean_average_precision(mean, truth), 4), "esc50_top1": round(top1, 4)}

    def _trained(self, recipe: Recipe, run: Path) -> tuple[Measure, Any]:
        place = Place(self.manifest)
        parts = read_parts(recipe, place)
        validation = open_sounds(recipe, place, parts, SAMPLE_RATE, lambda _: None)[1]
        config = check_recipe(recipe, parts.labels)
        network = build_network(config.backbone, config.backbone_config)
        network.load_state_dict(kept_weights(read_state(run), recipe.keep))
        return Measure(recipe, LogMel(FeatureConfig(**recipe.features)), validation), network.eval()

    def _folder(self, row: Row) -> Path:
        return self.work / folder_name(row)


def folder_name(row: Row) -> str:
    """A row's folder: its recipe and what sets it apart."""
    words = "".join(letter if letter.isalnum() else "-" for letter in row.name.lower())
    return f"{row.recipe}-{words}"


def result_of(work: Path, row: Row) -> dict[str, Any] | None:
    """What a finished row measured; None if it is not finished."""
    path = work / folder_name(row) / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def prepare_corpus(manifest: Path, work: Path, per_class: int = 0) -> Path:
    """Decode the manifest's ESC-50 clips once into `work`, at most `per_class` of each class and fold; its manifest.

    Raises: ManifestError if there are none; AudioError if one cannot be read.
    """
    corpus = work / "corpus"
    if (corpus / "manifest.csv").exists():
        return corpus / "manifest.csv"
    clips = _some([clip for clip in read_manifest(manifest) if clip.category], per_class)
    if not clips:
        raise ManifestError(f"{manifest} has no clips of ESC-50 (with an esc50_class)")
    corpus.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, clip in enumerate(clips):
        soundfile.write(corpus / f"{number}.wav", read_waveform(clip.file, SAMPLE_RATE), SAMPLE_RATE, subtype="FLOAT")
        rows.append([f"{number}.wav", "|".join(clip.mids), clip.split_group, clip.fold, clip.category])
    with (corpus / "manifest.part").open("w", newline="") as lines:
        csv.writer(lines).writerows([["file", "mids", "split_group", "fold", "esc50_class"], *rows])
    (corpus / "manifest.part").replace(corpus / "manifest.csv")
    return corpus / "manifest.csv"


def _some(clips: list[Clip], per_class: int) -> list[Clip]:
    counts: dict[tuple[str, int | None], int] = {}
    chosen = []
    for clip in clips:
        key = (clip.category, clip.fold)
        counts[key] = counts.get(key, 0) + 1
        if not per_class or counts[key] <= per_class:
            chosen.append(clip)
    return chosen


INTRODUCTION = """# Ablations

The papers' own ablations at a scale for two processor cores and no GPU: networks of width 64 and of 2 to 4
layers on 64 mels, five epochs on ESC-50's folds 1 to 3 (1,200 clips), after three of pre-training on the same clips
where there is any, measured once on fold 4 (400 clips; a point of top-1 is four clips). The table shows that every
variant trains and what it costs. Differences of a few points are chance, and no number here compares with the papers',
which stand beside them for their order only. Every row is a few overrides of a recipe in `model/training/recipes`.

```console
$ python -m model.training.ablations MANIFEST
```

measures what has no result yet and writes this page; stopped, it goes on where it was. `-` means not measured.
"""


def write_table(work: Path, out: Path) -> None:
    """Write the page from whatever results there are."""
    out.write_text(INTRODUCTION + "".join(_section(work, group) for group in GROUPS))


def _section(work: Path, group: Group) -> str:
    head = f"\n## {group.title}\n\nThe paper's column: {group.paper}.\n\n"
    columns = ("row", "recipe and overrides", "parameters", "pre-training loss", "top-1", "mAP", "seconds", "paper")
    head += f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n"
    return head + "".join(_line(row, result_of(work, row) or {}) for row in group.rows)


def _line(row: Row, result: dict[str, Any]) -> str:
    start = f"`{row.recipe}`" + (f" after `{row.pretrain}`" if row.pretrain else "")
    overrides = [f"`{override}`" for override in (*row.overrides, *row.pretrain_overrides)]
    cells = [
        row.name,
        " ".join([start, *overrides]) if not row.members else "mean of the scores",
        f"{result['parameters']:,}" if "parameters" in result else "-",
        f"{result['pretrain_loss']:.4f}" if result.get("pretrain_loss") is not None else "-",
        f"{100 * result['esc50_top1']:.1f} %" if "esc50_top1" in result else "-",
        f"{result['map']:.3f}" if "map" in result else "-",
        str(result.get("seconds", "-")),
        row.paper or "-",
    ]
    return f"| {' | '.join(cells)} |\n"


def main(arguments: list[str] | None = None) -> None:
    """Fill the table and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m model.training.ablations", description="Measure the ablation table."
    )
    parser.add_argument("manifest", type=Path, help="CSV manifest with ESC-50's clips")
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"), help="folder of runs and results")
    parser.add_argument("--out", type=Path, default=Path("docs/ablations.md"), help="the page to write")
    parser.add_argument("--only", default="", help="rows whose recipe or name contains this")
    parser.add_argument("--epochs", type=int, default=0, help="a rehearsal with fewer epochs")
    parser.add_argument("--per-class", type=int, default=0, help="a rehearsal with fewer clips per class and fold")
    options = parser.parse_args(arguments)
    table = Table(prepare_corpus(options.manifest, options.work, options.per_class), options.work, options.epochs)
    rows = [row for group in GROUPS for row in group.rows]
    for row in rows:
        if options.only in f"{row.recipe} {row.name}":
            table.fill([row])
            write_table(options.work, options.out)


if __name__ == "__main__":
    main()
