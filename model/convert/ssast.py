"""Official SSAST files (YuanGongND/ssast) to our SSAST, pre-trained or fine-tuned, on patches or on frames.

A pre-trained file records its input length. A fine-tuned one has the names of an AST; how it pools is not in the file
(mean, upstream's default, unless a flag says otherwise).
"""

from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor

from model.backbones.ssast_model import SSAST, SSASTConfig
from model.convert.geometry import Hints, TransformerShape, classes, overlapping_grid, transformer_shape
from model.convert.official_ast import STRIDES
from model.convert.official_ast import TABLE as AST_TABLE
from model.convert.reading import Source
from model.convert.renaming import Converted, Table, check_fits, rename, require_family, take
from model.patches import Pair

TABLE: Table = (
    *AST_TABLE,
    (r"(mask_embed|[cg]predlayer\.[02]\.(?:weight|bias)|p_input_[ft]dim)", r"\1"),
)

FRAME_STRIDES = (1, 2)
"""Time strides of the frame model: fine-tuned with overlap, pre-trained without."""


def convert(source: Source, hints: Hints) -> Converted:
    """Convert the tensors of an official SSAST.

    Raises:
        ConversionError: the file is another family's, or does not tell enough.
    """
    require_family(source.tensors, "ssast", "ast")
    state, left_out = rename(source.tensors, TABLE)
    config = _pretrained_config(state, hints) if "mask_embed" in state else _fine_tuned_config(state, hints)
    state = {name: tensor for name, tensor in state.items() if not name.startswith("p_input_")}  # now in the config
    with torch.device("meta"):
        check_fits(state, SSAST(config))
    return Converted("ssast", config, state, left_out)


def _pretrained_config(state: Mapping[str, Tensor], hints: Hints) -> SSASTConfig:
    sizes = asdict(transformer_shape(state, hints))
    sizes["mels"] = int(take(state, "p_input_fdim", 0))
    return SSASTConfig(
        **sizes,
        classes=0,
        frames=int(take(state, "p_input_tdim", 0)),
        stride_mels=sizes["patch_mels"],
        stride_frames=sizes["patch_frames"],
        pooling=hints.pooling or "mean",
        pretraining=True,
    )


def _fine_tuned_config(state: Mapping[str, Tensor], hints: Hints) -> SSASTConfig:
    shape = transformer_shape(state, hints)
    positions = take(state, "pos_embed", 3).shape[1] - (2 if shape.distilled else 1)
    stride, frames = overlapping_grid(positions, shape.mels, shape.patch, _strides(shape, hints), hints)
    return SSASTConfig(
        **asdict(shape),
        classes=classes(state, "head.1.weight"),
        frames=frames,
        stride_mels=stride[0],
        stride_frames=stride[1],
        pooling=hints.pooling or "mean",
    )


def _strides(shape: TransformerShape, hints: Hints) -> list[Pair]:
    """The frame model moves in time only; the patch model by the same in both directions."""
    if shape.patch_mels == shape.mels:
        return [(shape.mels, stride) for stride in ([hints.stride] if hints.stride else FRAME_STRIDES)]
    return [(stride, stride) for stride in ([hints.stride] if hints.stride else STRIDES)]
