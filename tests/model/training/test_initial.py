"""Weights come from a run, a checkpoint or ImageNet, fitted to the recipe's network, or are refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model import checkpoint
from model.checkpoint import CheckpointConfig
from model.features import FeatureConfig
from model.labels import LabelSet
from model.registry import build_network
from model.training.initial import initialise
from model.training.pretrain import pretrain
from model.training.recipe import RecipeError, TrainingRecipe
from tests.model.training.tiny_runs import (
    AST,
    AUM,
    FBANK,
    SSAM,
    SSAST,
    quiet,
    tiny_pretraining,
    tiny_recipe,
    write_corpus,
)

LABELS = LabelSet.from_mids(["/m/06mb1", "/m/0bt9lr"])
OTHERS = LabelSet.from_mids(["/m/06mb1", "/m/09x0r"])


def _network(backbone: str, shape: dict, labels: LabelSet = LABELS) -> torch.nn.Module:
    return build_network(backbone, {**shape, "classes": len(labels)})


def _checkpoint(folder: Path, backbone: str, shape: dict, labels: LabelSet = LABELS) -> dict[str, torch.Tensor]:
    config = CheckpointConfig(
        "start",
        backbone,
        {**shape, "classes": len(labels)},
        FeatureConfig(**{**FBANK, "frames": shape["frames"]}),
        0.3,
        0.3,
    )
    state = _network(backbone, shape, labels).state_dict()
    checkpoint.save(folder, config, state, labels, checkpoint.golden_waveform(config), "# start")
    return state


def _recipe(backbone: str, shape: dict, initial: Path | str) -> TrainingRecipe:
    return tiny_recipe(backbone=backbone, backbone_config=shape, initial=str(initial))


@pytest.mark.parametrize(("backbone", "shape"), [("aum", AUM), ("ast", AST), ("ssast", SSAST), ("ssam", SSAM)])
def test_a_checkpoint_with_the_same_labels_is_taken_whole(tmp_path: Path, backbone: str, shape: dict) -> None:
    state = _checkpoint(tmp_path / "start", backbone, shape)
    network = _network(backbone, shape)
    assert (
        initialise(network, _recipe(backbone, shape, tmp_path / "start"), LABELS) == f"starting from {tmp_path}/start"
    )
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(("backbone", "shape"), [("aum", AUM), ("ast", AST), ("ssast", SSAST)])
def test_other_labels_start_anew_and_positions_are_resized(tmp_path: Path, backbone: str, shape: dict) -> None:
    state = _checkpoint(tmp_path / "start", backbone, {**shape, "frames": 64})
    network = _network(backbone, shape, OTHERS)
    fresh = [parameter.clone() for parameter in network.head.parameters()]
    said = initialise(network, _recipe(backbone, shape, tmp_path / "start"), OTHERS)
    assert said.endswith("; fresh: head")
    assert all(torch.equal(*pair) for pair in zip(fresh, network.head.parameters(), strict=True))
    assert torch.equal(network.patch_embed.proj.weight, state["patch_embed.proj.weight"])


def test_a_pre_training_run_gives_its_average_without_its_heads(tmp_path: Path) -> None:
    run = pretrain(tiny_pretraining(1), write_corpus(tmp_path, 8), tmp_path / "run", quiet)
    network = _network("ssam", SSAM)
    said = initialise(network, _recipe("ssam", SSAM, tmp_path / "run"), LABELS)
    assert said.endswith("; fresh: head")
    assert run.average is not None
    assert torch.equal(network.blocks[0].mixer.A_log, run.average.blocks[0].mixer.A_log)
    with pytest.raises(RecipeError, match="of the ssam family, the recipe of aum"):
        initialise(_network("aum", AUM), _recipe("aum", AUM, tmp_path / "run"), LABELS)
    wider = {**SSAM, "width": 32}
    with pytest.raises(RecipeError, match="another size"):
        initialise(_network("ssam", wider), _recipe("ssam", wider, tmp_path / "run"), LABELS)


def test_a_run_that_has_not_finished_says_so(tmp_path: Path) -> None:
    """Its weights were taken without a word, or, where they are of its last epochs, blamed for not fitting."""
    manifest = write_corpus(tmp_path, 16)

    def stop(line: str) -> None:
        if line.startswith('{"epoch": 1'):
            raise KeyboardInterrupt

    for keep, changes in (("ema", {}), ("mean", {"mean_epochs": 1})):
        with pytest.raises(KeyboardInterrupt):
            pretrain(tiny_pretraining(2, keep=keep, **changes), manifest, tmp_path / keep, stop)
    said = initialise(_network("ssam", SSAM), _recipe("ssam", SSAM, tmp_path / "ema"), LABELS)
    assert "ema, which has finished 1 of its 2 epochs; fresh: head" in said
    with pytest.raises(RecipeError, match="mean has finished 1 of its 2 epochs, and no keep: mean weights yet"):
        initialise(_network("ssam", SSAM), _recipe("ssam", SSAM, tmp_path / "mean"), LABELS)


def test_another_depth_is_refused_where_no_rule_fits_it(tmp_path: Path) -> None:
    _checkpoint(tmp_path / "start", "aum", AUM)
    deeper = {**AUM, "depth": 2}
    with pytest.raises(RecipeError, match=r"does not fit the recipe's network: layers\.1"):
        initialise(_network("aum", deeper), _recipe("aum", deeper, tmp_path / "start"), LABELS)


def test_imagenet_weights_start_an_ast(tmp_path: Path) -> None:
    source = build_network("ast", {**AST, "mels": 64, "frames": 64, "classes": 3}).state_dict()
    deit = {name: tensor for name, tensor in source.items() if not name.startswith("head.")}
    deit["patch_embed.proj.weight"] = deit["patch_embed.proj.weight"].repeat(1, 3, 1, 1)
    save_file({name: tensor.contiguous() for name, tensor in deit.items()}, tmp_path / "deit.safetensors")
    network = _network("ast", AST)
    assert "ImageNet" in initialise(network, _recipe("ast", AST, tmp_path / "deit.safetensors"), LABELS)
    assert torch.equal(network.blocks[0].norm1.weight, deit["blocks.0.norm1.weight"])
    with pytest.raises(RecipeError, match="can start an ast or an aum only"):
        initialise(_network("ssam", SSAM), _recipe("ssam", SSAM, tmp_path / "deit.safetensors"), LABELS)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="say --set initial=FILE"):
        initialise(_network("ast", AST), _recipe("ast", AST, "imagenet"), LABELS)
    with pytest.raises(RecipeError, match="nor the folder of a run, nor a file"):
        initialise(_network("ast", AST), _recipe("ast", AST, tmp_path / "nothing"), LABELS)
    assert "random" in initialise(_network("ast", AST), replace(tiny_recipe(), initial=""), LABELS)
