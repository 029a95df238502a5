"""The ablation table: every row's recipes read and fit, rows run, are skipped when finished, and become a page."""

from dataclasses import replace
from pathlib import Path

import pytest

from model.training import ablations
from model.training.ablation_rows import GROUPS, Group, Row
from model.training.ablations import (
    RECIPES,
    Table,
    folder_name,
    prepare_corpus,
    result_of,
    write_table,
)
from model.training.clips import ManifestError
from model.training.recipe import read_recipe
from model.training.workbench import check_recipe
from tests.model.training.tiny_runs import write_corpus

ROWS = [row for group in GROUPS for row in group.rows]
TINY = (
    "batch=8",
    "backbone_config.width=16",
    "backbone_config.depth=1",
    "precision=float32",
    "machine.accelerator=cpu",
)


@pytest.mark.parametrize("row", ROWS, ids=folder_name)
def test_every_rows_recipes_read_and_fit(row: Row) -> None:
    check_recipe(read_recipe(RECIPES / f"{row.recipe}.yaml", row.overrides))
    if row.pretrain:
        check_recipe(read_recipe(RECIPES / f"{row.pretrain}.yaml", [*row.overrides, *row.pretrain_overrides]))
    assert set(row.members) <= {other.name for other in ROWS}


def test_every_row_has_a_folder_of_its_own() -> None:
    assert len({folder_name(row) for row in ROWS}) == len(ROWS)


def test_the_small_ssast_has_the_papers_grid_for_patches_and_frames() -> None:
    grids = {}
    for row in ROWS:
        if row.pretrain == "small-ssast-pretrain":
            recipe = read_recipe(RECIPES / f"{row.pretrain}.yaml", [*row.overrides, *row.pretrain_overrides])
            shape = recipe.backbone_config
            grids[row.name.split(",")[0]] = (64 // shape["stride_mels"], 512 // shape["stride_frames"])
    assert grids == {"patch": (8, 64), "frame": (1, 512)}


def test_rows_run_once_ensembles_average_them_and_the_page_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    corpus = prepare_corpus(write_corpus(sounds), tmp_path / "work", per_class=12)
    assert prepare_corpus(sounds / "gone.csv", tmp_path / "work") == corpus
    ssam = replace(GROUPS[0].rows[1], overrides=(*TINY, "backbone_config.patch_mels=16"))
    ast = [Row(name, "small-ast", (*TINY, f"seed={i}")) for i, name in enumerate(("a", "b"))]
    rows = (ssam, *ast, Row("both", "small-ast", members=("a", "b")))
    monkeypatch.setattr(ablations, "GROUPS", (Group("a title", "nothing", rows),))
    lines: list[str] = []
    table = Table(corpus, tmp_path / "work", epochs=1, report=lines.append)
    table.fill(rows)
    assert [line for line in lines if line.startswith("==")] == [f"== {row.name}" for row in rows]
    first = result_of(tmp_path / "work", ssam)
    assert first is not None
    assert {"pretrain_loss", "map", "esc50_top1", "parameters", "seconds"} <= first.keys()
    lines.clear()
    table.fill(rows)
    assert lines == []
    write_table(tmp_path / "work", tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text()
    assert f"| {first['parameters']:,} | {first['pretrain_loss']:.4f} |" in page
    assert "| both | mean of the scores | - | - |" in page


def test_a_manifest_without_esc50_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text("file,mids,split_group\na.wav,/m/0bt9lr,a\n")
    with pytest.raises(ManifestError, match="no clips of ESC-50"):
        prepare_corpus(path, tmp_path / "work")
