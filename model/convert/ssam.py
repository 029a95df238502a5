"""Files of SarthakYadav/audio-mamba-official to our SSAM: pre-trained encoders, and the SSAST baseline beside them.

Both keep the mask token and the reconstruction head, and have no classifier: they give features, and start fine-tuning.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace

import torch
from torch import Tensor

from model.backbones.ssam_model import SSAM, SSAMConfig
from model.convert.aum import MIXER
from model.convert.geometry import Hints, depth, mixer_shape, plain_grid, transformer_shape
from model.convert.reading import Source
from model.convert.renaming import Converted, Table, check_fits, rename, require_family, take

TABLE: Table = (
    (r"(cls_token|mask_token|pos_embed|(?:patch_embed\.proj|encoder_norm|pred\.[02])\.(?:weight|bias))", r"\1"),
    (rf"(blocks\.\d+\.(?:norm\.(?:weight|bias)|{MIXER}))", r"\1"),
    (r"(blocks\.\d+\.norm[12]\.(?:weight|bias))", r"\1"),
    (r"(blocks\.\d+\.attn\.(?:qkv|proj))_layer(\.(?:weight|bias))", r"\1\2"),
    (r"(blocks\.\d+\.mlp\.)layer([12]\.(?:weight|bias))", r"\1fc\2"),
)


def convert(source: Source, hints: Hints) -> Converted:
    """Convert the tensors of a pre-trained SSAM, or of the same authors' SSAST.

    Raises:
        ConversionError: the file is another family's, or does not tell enough.
    """
    require_family(source.tensors, "ssam")
    state, left_out = rename(source.tensors, TABLE)
    config = infer_config(state, hints)
    with torch.device("meta"):
        check_fits(state, SSAM(config))
    return Converted("ssam", config, state, left_out)


def infer_config(state: Mapping[str, Tensor], hints: Hints) -> SSAMConfig:
    """Read every size from the tensors.

    Raises:
        ConversionError: tensors that tell are missing, or the number of heads (of the baseline) is open.
    """
    width, _, patch_frames, patch_mels = take(state, "patch_embed.proj.weight", 4).shape
    mels = hints.mels or 80
    positions = take(state, "pos_embed", 3).shape[1] - 1
    config = SSAMConfig(
        classes=0,
        mels=mels,
        frames=plain_grid(positions, mels, (patch_mels, patch_frames), hints),
        width=width,
        depth=depth(state, "blocks"),
        patch_mels=patch_mels,
        patch_frames=patch_frames,
        pretraining="mask_token" in state,
    )
    if "blocks.0.attn.qkv.weight" in state:
        shape = transformer_shape(state, hints)
        return replace(config, mixer="attention", heads=shape.heads, mlp_ratio=shape.mlp_ratio)
    return replace(config, **asdict(mixer_shape(state, "blocks.0.mixer", width)))
