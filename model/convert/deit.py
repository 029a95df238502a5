"""ImageNet weights of a DeiT as the start of an AST's training (section 2.2 of the AST paper)."""

from collections.abc import Mapping

from torch import Tensor

from model.backbones.ast_model import AST, fit_positions
from model.convert.errors import TensorMismatchError
from model.convert.renaming import Table, check_fits, rename, require_family, take

TABLE: Table = (
    (r"(cls_token|dist_token|pos_embed|(?:patch_embed\.proj|norm)\.(?:weight|bias))", r"\1"),
    (r"(blocks\.\d+\.(?:norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(?:weight|bias))", r"\1"),
    (r"head(?:_dist)?\.(?:weight|bias)", None),  # ImageNet's classes
)


def initialise_from_deit(network: AST, tensors: Mapping[str, Tensor]) -> None:
    """Copy a DeiT into an AST of the same size; the AST's own head stays as it is.

    The kernel's three colours are summed into one channel; the square table of positions is cut or resized.

    Raises:
        ConversionError: the file is no DeiT, or one of another size.
    """
    require_family(tensors, "deit")
    state, _ = rename(tensors, TABLE)
    state["patch_embed.proj.weight"] = take(state, "patch_embed.proj.weight", 4).sum(dim=1, keepdim=True)
    extra = network.config.class_tokens
    table = take(state, "pos_embed", 3)
    side = square_side(table.shape[1] - extra)
    state["pos_embed"] = fit_positions(table, extra, (side, side), network.config.grid)
    check_fits(state, network, but="head.")
    network.load_state_dict(state, strict=False)


def square_side(patches: int) -> int:
    """Give the side of a square grid of so many patches.

    Raises:
        TensorMismatchError: they do not make a square.
    """
    side = int(max(patches, 0) ** 0.5)
    if side < 1 or side * side != patches:
        raise TensorMismatchError(f"pos_embed has {patches} patch positions, which make no square grid")
    return side
