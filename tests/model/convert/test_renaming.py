"""Renaming tables: everything a table does not know is an error that names it."""

import pytest
import torch
from torch import nn

from model.convert.errors import TensorMismatchError, WrongFamilyError, list_names
from model.convert.renaming import check_fits, rename, require_family, take
from tests.golden import load_golden

TABLE = ((r"old\.(\w+)", r"new.\1"), (r"alias", "new.a"), (r"unused", None))


def tensors(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(1) for name in names}


def test_names_are_replaced_or_left_out():
    renamed, left_out = rename(tensors("old.a", "old.b", "unused"), TABLE)
    assert list(renamed) == ["new.a", "new.b"]
    assert left_out == ("unused",)


def test_unknown_names_are_listed():
    with pytest.raises(TensorMismatchError, match=r"unknown tensors: old\.a\.b, strange"):
        rename(tensors("old.a", "strange", "old.a.b"), TABLE)


def test_two_names_for_one_tensor_are_refused():
    with pytest.raises(TensorMismatchError, match=r"new\.a under more than one name"):
        rename(tensors("old.a", "alias"), TABLE)


def test_long_lists_are_cut():
    assert list_names(f"t{number:02}" for number in range(20)).endswith("t07 and 12 more")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["weight"], "lacks tensors: bias"),
        (["weight", "bias", "more"], "does not have: more"),
        (["weight", "bias"], r"another shape than the network's: weight \(1,\) instead of \(1, 2\)"),
    ],
)
def test_a_state_that_does_not_fit_is_described(names, message):
    with pytest.raises(TensorMismatchError, match=message):
        check_fits(tensors(*names), nn.Linear(2, 1))


def test_names_that_may_lack():
    check_fits({"weight": torch.zeros(1, 2)}, nn.Linear(2, 1), but="bias")


@pytest.mark.parametrize(("name", "dimensions"), [("nothing", 1), ("a", 2)])
def test_a_telling_tensor_must_be_there_with_its_dimensions(name, dimensions):
    with pytest.raises(TensorMismatchError, match=name):
        take(tensors("a"), name, dimensions)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("ast_hf_sc", "a Hugging Face AST"),
        ("aum_bibi", "an AuM"),
        ("ssam_encoder", "an SSAM or its SSAST baseline"),
        ("ssast_yadav_encoder", "an SSAM or its SSAST baseline"),
        ("ssast_patch_pretrain", "a pre-trained SSAST"),
        ("ast_official_sc", "an AST"),
    ],
)
def test_every_family_is_recognised(name, title):
    with pytest.raises(WrongFamilyError, match=title):
        require_family(load_golden(name).state, "none")


def test_a_file_of_no_family_is_described_by_its_tensors():
    with pytest.raises(WrongFamilyError, match=r"none of the networks that Hark knows; its tensors are fc\.weight"):
        require_family(tensors("fc.weight"), "ast")
