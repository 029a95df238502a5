"""Official AuM files (kaistmm/Audio-Mamba-AuM) to our AuM; the names are the same, the sizes follow from shapes."""

from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor

from model.backbones.aum_model import AuM, AuMConfig
from model.backbones.mamba import Variant
from model.convert.errors import TensorMismatchError
from model.convert.geometry import Hints, classes, depth, mixer_shape, overlapping_grid, plain_grid
from model.convert.reading import Source
from model.convert.renaming import Converted, Table, check_fits, rename, require_family, take

MIXER = (
    r"mixer\.(?:in_proj\.weight|out_proj\.weight|A_log|D|A_b_log|D_b"
    r"|conv1d(?:_b)?\.(?:weight|bias)|x_proj(?:_b)?\.weight|dt_proj(?:_b)?\.(?:weight|bias))"
)

TABLE: Table = (
    (r"(cls_token|pos_embed\.pos_embed|norm_f\.weight|(?:patch_embed\.proj|head)\.(?:weight|bias))", r"\1"),
    (rf"(layers\.\d+\.(?:norm\.weight|{MIXER}))", r"\1"),
)


def convert(source: Source, hints: Hints) -> Converted:
    """Convert the tensors of an official AuM.

    Raises:
        ConversionError: the file is another family's, or does not tell enough.
    """
    require_family(source.tensors, "aum")
    state, left_out = rename(source.tensors, TABLE)
    config = infer_config(state, hints)
    with torch.device("meta"):
        check_fits(state, AuM(config))
    return Converted("aum", config, state, left_out)


def infer_config(state: Mapping[str, Tensor], hints: Hints) -> AuMConfig:
    """Read every size of an AuM from its tensors; patches lie side by side unless a stride is given.

    Raises:
        ConversionError: tensors that tell are missing, or the number of positions fits no input.
    """
    width, _, patch_mels, patch_frames = take(state, "patch_embed.proj.weight", 4).shape
    if patch_mels != patch_frames:
        raise TensorMismatchError(
            f"patch_embed.proj.weight has patches of {patch_mels} x {patch_frames}, not square ones"
        )
    positions = take(state, "pos_embed.pos_embed", 3).shape[1] - 1
    mels, patch = hints.mels or 128, (patch_mels, patch_frames)
    if hints.stride is None or hints.stride == patch_mels:
        stride, frames = patch_mels, plain_grid(positions, mels, patch, hints)
    else:
        stride = hints.stride
        _, frames = overlapping_grid(positions, mels, patch, [(stride, stride)], hints)
    return AuMConfig(
        classes=classes(state, "head.weight"),
        mels=mels,
        frames=frames,
        patch=patch_mels,
        stride=stride,
        width=width,
        depth=depth(state, "layers"),
        variant=_variant(state),
        **asdict(mixer_shape(state, "layers.0.mixer", width)),
    )


def _variant(state: Mapping[str, Tensor]) -> Variant:
    if "layers.0.mixer.D_b" in state:
        return "v2"
    return "v1" if "layers.0.mixer.A_b_log" in state else "none"
