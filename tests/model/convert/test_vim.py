"""A Vision Mamba as the start of an AuM."""

import pytest
import torch

from model.backbones.aum_model import AuM, AuMConfig
from model.convert.errors import TensorMismatchError, WrongFamilyError
from model.convert.vim import initialise_from_vim
from tests.golden import assert_close, load_golden


def vim() -> dict[str, torch.Tensor]:
    golden = load_golden("aum_from_vim")
    return {name.removeprefix("vim."): golden[name] for name in golden.tensors if name.startswith("vim.")}


def network(variant: str = "v2") -> AuM:
    return AuM(AuMConfig(classes=13, frames=256, width=12, depth=1, variant=variant)).eval()  # type: ignore[arg-type]


def test_all_weights_are_those_of_the_official_initialisation():
    golden, aum = load_golden("aum_from_vim"), network()
    initialise_from_vim(aum, vim())
    for name, tensor in aum.state_dict().items():
        if not name.startswith("head."):
            assert_close(tensor, golden.state[name])


def test_with_the_official_head_the_logits_are_official():
    golden, aum = load_golden("aum_from_vim"), network()
    initialise_from_vim(aum, vim())
    aum.head.load_state_dict({part: golden.state[f"head.{part}"] for part in ("weight", "bias")})
    with torch.inference_mode():
        assert_close(aum(golden["input"]), golden["logits"])


def test_another_variant_is_refused():
    with pytest.raises(TensorMismatchError, match=r"does not have: layers\.0\.mixer\.D_b"):
        initialise_from_vim(network("v1"), vim())


def test_an_aum_is_no_vision_mamba():
    with pytest.raises(WrongFamilyError, match="an AuM"):
        initialise_from_vim(network(), load_golden("aum_bibi").state)
