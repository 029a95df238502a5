"""Upstream's tensor names to ours: one table per source; nothing is dropped that its table does not drop on purpose."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from model.convert.errors import TensorMismatchError, WrongFamilyError, list_names

Table = Sequence[tuple[str, str | None]]
"""Pairs of a pattern for a whole upstream name and its replacement; None leaves the tensor out."""


@dataclass(frozen=True)
class Converted:
    """A network in our terms: its backbone's name, its config, its state dict, and the tensors left out on purpose."""

    backbone: str
    config: Any
    state: dict[str, Tensor]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Family:
    """A kind of published file: how `--from` calls it, what it is, and a pattern that only its names match."""

    flag: str
    title: str
    signature: str
    advice: str


FAMILIES = (
    Family("hf-ast", "a Hugging Face AST", r"(.*\.)?embeddings\.distillation_token", "use --from hf-ast"),
    Family("aum", "an AuM", r"pos_embed\.pos_embed", "use --from aum"),
    Family(
        "vim", "a Vision Mamba for images", r"layers\.\d+\.mixer\.A_log", "it can only start the training of an AuM"
    ),
    Family("ssam", "an SSAM or its SSAST baseline", r"encoder_norm\.weight", "use --from ssam"),
    Family("ssast", "a pre-trained SSAST", r"mask_embed", "use --from ssast"),
    Family("ast", "an AST", r"v\.patch_embed\.proj\.weight", "use --from ast"),
    Family("deit", "a DeiT for images", r"blocks\.\d+\.attn\.qkv\.weight", "it can only start the training of an AST"),
)


def require_family(tensors: Mapping[str, Tensor], *flags: str) -> None:
    """Check that a file belongs to one of the families that `flags` name.

    Raises:
        WrongFamilyError: it does not; the message says what it is instead.
    """
    for family in FAMILIES:
        sign = next((name for name in tensors if re.fullmatch(family.signature, name)), None)
        if sign is None:
            continue
        if family.flag in flags:
            return
        raise WrongFamilyError(
            f"the file holds {family.title} (it has {sign}), not what --from asked for; {family.advice}"
        )
    raise WrongFamilyError(
        f"the file holds none of the networks that Hark knows; its tensors are {list_names(tensors)}"
    )


def rename(tensors: Mapping[str, Tensor], table: Table) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Rename tensors by the first pattern of the table that matches, and list those left out on purpose.

    Raises:
        TensorMismatchError: no pattern matches a name, or two names become one.
    """
    renamed: dict[str, Tensor] = {}
    left_out, unknown = [], []
    for name, tensor in tensors.items():
        pattern, replacement = next((row for row in table if re.fullmatch(row[0], name)), (None, None))
        if pattern is None:
            unknown.append(name)
        elif replacement is None:
            left_out.append(name)
        elif (target := re.sub(pattern, replacement, name)) in renamed:
            raise TensorMismatchError(f"the file holds {target} under more than one name")
        else:
            renamed[target] = tensor
    if unknown:
        raise TensorMismatchError(f"the file holds unknown tensors: {list_names(unknown)}")
    return renamed, tuple(left_out)


def take(state: Mapping[str, Tensor], name: str, dimensions: int) -> Tensor:
    """Get a tensor of so many dimensions whose shape says something about the network.

    Raises:
        TensorMismatchError: it is missing, or has another number of dimensions.
    """
    if name not in state:
        raise TensorMismatchError(f"the file lacks tensors: {name}")
    if state[name].ndim != dimensions or 0 in state[name].shape:
        raise TensorMismatchError(f"{name} has shape {tuple(state[name].shape)}, expected {dimensions} dimensions")
    return state[name]


def check_fits(state: Mapping[str, Tensor], network: nn.Module, but: str | None = None) -> None:
    """Check that a state dict is exactly the network's, in names and shapes; names starting with `but` may lack.

    Raises:
        TensorMismatchError: it is not; the message names the tensors.
    """
    expected = network.state_dict()
    missing = [name for name in expected if name not in state and not (but and name.startswith(but))]
    if missing:
        raise TensorMismatchError(f"the file lacks tensors: {list_names(missing)}")
    if unknown := [name for name in state if name not in expected]:
        raise TensorMismatchError(f"the file holds tensors that this network does not have: {list_names(unknown)}")
    other = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
        for name, tensor in state.items()
        if tensor.shape != expected[name].shape
    ]
    if other:
        raise TensorMismatchError(f"tensors have another shape than the network's: {list_names(other)}")
