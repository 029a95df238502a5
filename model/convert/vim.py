"""ImageNet weights of a Vision Mamba as the start of an AuM's training, as kaistmm/Audio-Mamba-AuM does it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from model.backbones.aum_model import AuM, resize_table
from model.convert.aum import MIXER
from model.convert.deit import square_side
from model.convert.renaming import Table, check_fits, rename, require_family, take
from model.patches import resize_patch_kernel

TABLE: Table = (
    (r"(cls_token|norm_f\.weight|patch_embed\.proj\.(?:weight|bias))", r"\1"),
    (r"pos_embed", "pos_embed.pos_embed"),
    (rf"(layers\.\d+\.(?:norm\.weight|{MIXER}))", r"\1"),
    (r"head\.(?:weight|bias)", None),  # ImageNet's classes
)


def initialise_from_vim(network: AuM, tensors: Mapping[str, Tensor]) -> None:
    """Copy a Vision Mamba into an AuM of the same size and variant; the AuM's own head stays as it is.

    The kernel's three colours are averaged into one channel; the class token's position moves from the middle of the
    table to its start; the square table is resized with antialias.

    Raises:
        ConversionError: the file is no Vision Mamba, or one of another size or variant.
    """
    require_family(tensors, "vim")
    state, _ = rename(tensors, TABLE)
    kernel = take(state, "patch_embed.proj.weight", 4).mean(dim=1, keepdim=True)
    state["patch_embed.proj.weight"] = resize_patch_kernel(kernel, (network.config.patch, network.config.patch))
    table = take(state, "pos_embed.pos_embed", 3)
    middle = table.shape[1] // 2
    table = torch.cat([table[:, middle : middle + 1], table[:, :middle], table[:, middle + 1 :]], dim=1)
    side = square_side(table.shape[1] - 1)
    state["pos_embed.pos_embed"] = resize_table(table, (side, side), network.config.grid)
    check_fits(state, network, but="head.")
    network.load_state_dict(state, strict=False)
