"""Hugging Face AST checkpoints (transformers 4.x and 5.x names) to our AST.

A config.json beside the weights says what shapes cannot; without one, what it would say is inferred as for official
files. Hugging Face normalises with an epsilon of 1e-12 throughout (their config's layer_norm_eps).
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from model.backbones.ast_model import AST, ASTConfig
from model.convert.errors import ConversionError, TensorMismatchError, list_names
from model.convert.geometry import Hints, TransformerShape, classes, overlapping_grid, transformer_shape
from model.convert.official_ast import STRIDES
from model.convert.reading import Source
from model.convert.renaming import Converted, Table, check_fits, rename, require_family, take
from model.patches import Pair

_LAYER = r"(?:audio_spectrogram_transformer\.)?(?:encoder\.layer|layers)\.(\d+)\."
_END = r"\.(weight|bias)"

TABLE: Table = (
    (r"(?:audio_spectrogram_transformer\.)?embeddings\.cls_token", "cls_token"),
    (r"(?:audio_spectrogram_transformer\.)?embeddings\.distillation_token", "dist_token"),
    (r"(?:audio_spectrogram_transformer\.)?embeddings\.position_embeddings", "pos_embed"),
    (r"(?:audio_spectrogram_transformer\.)?embeddings\.patch_embeddings\.projection" + _END, r"patch_embed.proj.\1"),
    (_LAYER + "layernorm_before" + _END, r"blocks.\1.norm1.\2"),
    (_LAYER + "layernorm_after" + _END, r"blocks.\1.norm2.\2"),
    (_LAYER + r"attention\.(?:attention\.query|q_proj)" + _END, r"blocks.\1.attn.query.\2"),
    (_LAYER + r"attention\.(?:attention\.key|k_proj)" + _END, r"blocks.\1.attn.key.\2"),
    (_LAYER + r"attention\.(?:attention\.value|v_proj)" + _END, r"blocks.\1.attn.value.\2"),
    (_LAYER + r"attention\.(?:output\.dense|o_proj)" + _END, r"blocks.\1.attn.proj.\2"),
    (_LAYER + r"(?:intermediate\.dense|mlp\.fc1)" + _END, r"blocks.\1.mlp.fc1.\2"),
    (_LAYER + r"(?:output\.dense|mlp\.fc2)" + _END, r"blocks.\1.mlp.fc2.\2"),
    (r"(?:audio_spectrogram_transformer\.)?layernorm" + _END, r"norm.\1"),
    (r"classifier\.layernorm" + _END, r"head.0.\1"),
    (r"classifier\.dense" + _END, r"head.1.\1"),
)

DEFAULT_EPSILON = 1e-12


def convert(source: Source, hints: Hints) -> Converted:
    """Convert a Hugging Face AST; without a classifier it becomes a network that only gives features.

    Raises:
        ConversionError: the file is another family's, or does not tell enough, or contradicts its config.json.
    """
    require_family(source.tensors, "hf-ast")
    state, left_out = rename(source.tensors, TABLE)
    state = join_attention(state)
    said = source.config or {}
    hints = _hints_from_config(hints, said)
    shape = transformer_shape(state, hints)
    stride, frames = _grid(state, shape, said, hints)
    epsilon = float(said.get("layer_norm_eps", DEFAULT_EPSILON))
    config = ASTConfig(
        **asdict(shape),
        classes=classes(state, "head.1.weight") if "head.0.weight" in state else 0,
        frames=frames,
        stride_mels=stride[0],
        stride_frames=stride[1],
        qkv_bias="blocks.0.attn.qkv.bias" in state,
        epsilon=epsilon,
        head_epsilon=epsilon,
    )
    with torch.device("meta"):
        check_fits(state, AST(config))
    return Converted("ast", config, state, left_out)


def join_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Stack each layer's query, key and value tensors, in this order, as one `qkv` tensor.

    Raises:
        TensorMismatchError: some of the three are missing, or their shapes differ.
    """
    joined = {name: tensor for name, tensor in state.items() if ".attn.query." not in name}
    for name in state.keys() - joined.keys():
        parts = [name.replace("query", part) for part in ("query", "key", "value")]
        if lacking := [part for part in parts if part not in state]:
            raise TensorMismatchError(f"the file lacks tensors: {list_names(lacking)}")
        if len({state[part].shape for part in parts}) > 1:
            raise TensorMismatchError(f"tensors differ in shape: {list_names(parts)}")
        joined[name.replace("query", "qkv")] = torch.cat([state[part] for part in parts])
        for part in parts[1:]:
            del joined[part]
    return joined


def _hints_from_config(hints: Hints, said: Mapping[str, Any]) -> Hints:
    """Flags first, then config.json."""
    if said.get("model_type", "audio-spectrogram-transformer") != "audio-spectrogram-transformer":
        raise ConversionError(f"config.json is of a {said['model_type']}, not of an audio-spectrogram-transformer")
    if said.get("hidden_act", "gelu") != "gelu":
        raise ConversionError(f"config.json asks for the activation {said['hidden_act']}; only gelu is supported")
    return replace(
        hints,
        heads=hints.heads or _whole_number(said, "num_attention_heads"),
        mels=hints.mels or _whole_number(said, "num_mel_bins"),
        frames=hints.frames or _whole_number(said, "max_length"),
    )


def _whole_number(said: Mapping[str, Any], name: str) -> int | None:
    value = said.get(name)
    if value is not None and (not isinstance(value, int) or value < 1):
        raise ConversionError(f"config.json gives {value!r} as {name}, which is not a whole number above 0")
    return value


def _grid(
    state: Mapping[str, Tensor], shape: TransformerShape, said: Mapping[str, Any], hints: Hints
) -> tuple[Pair, int]:
    """Stride and input length, from config.json where it is there."""
    positions = take(state, "pos_embed", 3).shape[1] - 2
    strides = [(stride, stride) for stride in ([hints.stride] if hints.stride else STRIDES)]
    by_config = _whole_number(said, "frequency_stride"), _whole_number(said, "time_stride")
    if not hints.stride and by_config[0] and by_config[1]:
        strides = [(by_config[0], by_config[1])]
    return overlapping_grid(positions, shape.mels, shape.patch, strides, hints)
