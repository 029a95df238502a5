"""Official AST files (YuanGongND/ast) to our AST.

Nearly everything follows from shapes; the patch stride and the input length follow from the number of positions where
it is that of a published geometry.
"""

from dataclasses import asdict

import torch

from model.backbones.ast_model import AST, ASTConfig
from model.convert.errors import WrongFamilyError
from model.convert.geometry import Hints, classes, overlapping_grid, transformer_shape
from model.convert.reading import Source
from model.convert.renaming import Converted, Table, check_fits, rename, require_family, take

TABLE: Table = (
    (r"v\.(cls_token|dist_token|pos_embed)", r"\1"),
    (r"v\.((?:patch_embed\.proj|norm)\.(?:weight|bias))", r"\1"),
    (r"v\.(blocks\.\d+\.(?:norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(?:weight|bias))", r"\1"),
    (r"mlp_head\.([01]\.(?:weight|bias))", r"head.\1"),
    (r"v\.head(?:_dist)?\.(?:weight|bias)", None),  # ImageNet's heads, never used
)

STRIDES = range(10, 17)
"""Square strides that were published, from most overlap to none."""


def convert(source: Source, hints: Hints) -> Converted:
    """Convert the tensors of an official AST.

    Raises:
        ConversionError: the file is another family's, or does not tell enough.
    """
    require_family(source.tensors, "ast")
    state, left_out = rename(source.tensors, TABLE)
    shape = transformer_shape(state, hints)
    if shape.patch_mels != shape.patch_frames:
        raise WrongFamilyError(f"patches of {shape.patch} make the file an SSAST frame model; use --from ssast")
    positions = take(state, "pos_embed", 3).shape[1] - (2 if shape.distilled else 1)
    strides = [(stride, stride) for stride in ([hints.stride] if hints.stride else STRIDES)]
    stride, frames = overlapping_grid(positions, shape.mels, shape.patch, strides, hints)
    config = ASTConfig(
        **asdict(shape),
        classes=classes(state, "head.1.weight"),
        frames=frames,
        stride_mels=stride[0],
        stride_frames=stride[1],
        qkv_bias="blocks.0.attn.qkv.bias" in state,
    )
    with torch.device("meta"):
        check_fits(state, AST(config))
    return Converted("ast", config, state, left_out)
