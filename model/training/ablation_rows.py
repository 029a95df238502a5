"""The rows of the ablation table: each is a small recipe with overrides, or the mean of other rows' networks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table: `overrides` belong to both runs, `pretrain_overrides` to pre-training alone.

    A row with `members` averages the scores of these rows' networks instead of training one.
    """

    name: str
    recipe: str
    overrides: tuple[str, ...] = ()
    pretrain: str = ""
    pretrain_overrides: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    paper: str = ""


@dataclass(frozen=True)
class Group:
    """Rows to be compared with each other; `paper` says what the paper's column counts."""

    title: str
    paper: str
    rows: tuple[Row, ...]


def _ssam(mels: int, frames: int) -> Row:
    overrides = (f"backbone_config.patch_mels={mels}", f"backbone_config.patch_frames={frames}")
    return Row(f"patches {frames}x{mels}", "small-ssam", overrides, "small-ssam-pretrain")


FRAMES = ("patch_mels=64", "patch_frames=1", "stride_mels=64", "stride_frames=1")


def _ssast(shape: str, masked: int, paper: str) -> Row:
    overrides = tuple(f"backbone_config.{setting}" for setting in FRAMES) if shape == "frame" else ()
    own = (f"masked_patches={masked}", *(("clusters=false",) if shape == "frame" else ()))
    return Row(f"{shape}, {masked} masked", "small-ssast", overrides, "small-ssast-pretrain", own, paper=paper)


def _aum(name: str, *settings: str) -> Row:
    return Row(name, "small-aum", tuple(f"backbone_config.{setting}" for setting in settings))


def _ast(stride: int, seed: int, paper: str) -> Row:
    settings = (f"backbone_config.stride_mels={stride}", f"backbone_config.stride_frames={stride}", f"seed={seed}")
    name = f"stride {stride}" + (f", seed {seed}" if stride == 10 else "")
    return Row(name, "small-ast", settings, paper=paper)


CONV = "backbone_config.stem=conv"
SIDE_BY_SIDE = ("backbone_config.stride_mels=16", "backbone_config.stride_frames=16")
TAUGHT = ("teachers=[cnn-teacher]", "distil_share=0.8")

SAME_STRIDE = tuple(f"stride 10, seed {seed}" for seed in (7, 8, 9))

GROUPS = (
    Group(
        "SSAM: shape of the patches (frames x mels)",
        "not published",
        (_ssam(8, 4), _ssam(16, 4), _ssam(16, 8), Row("patches 4x16, not pre-trained", "small-ssam")),
    ),
    Group(
        "SSAST: masked patches, patch and frame",
        "ESC-50 accuracy; for frames, the mean over audio tasks",
        (
            _ssast("patch", 100, "85.3"),
            _ssast("patch", 250, "86.7"),
            _ssast("patch", 400, "88.8"),
            Row("patch, not pre-trained", "small-ssast", paper="41.9"),
            _ssast("frame", 100, ""),
            _ssast("frame", 250, "55.6"),
            _ssast("frame", 400, "57.6"),
        ),
    ),
    Group(
        "AuM: directions, place of the class token",
        "not in the repository",
        (
            _aum("Fo-Fo, token in the middle", "variant=none"),
            _aum("Fo-Bi, token in the middle"),
            _aum("Bi-Bi, token in the middle", "variant=v2"),
            _aum("Fo-Bi, token at the start", "class_token=start"),
            _aum("Fo-Bi, token at the end", "class_token=end"),
        ),
    ),
    Group(
        "AST: overlap of the patches, ensembles",
        "AudioSet mAP",
        (
            _ast(16, 7, "0.4422"),
            _ast(14, 7, "0.4431"),
            _ast(12, 7, "0.4467"),
            _ast(10, 7, "0.4495"),
            _ast(10, 8, "0.4483"),
            _ast(10, 9, "0.4475"),
            Row("ensemble S: three of stride 10", "small-ast", members=SAME_STRIDE, paper="0.4751"),
            Row(
                "ensemble M: these, and strides 12, 14, 16",
                "small-ast",
                members=(*SAME_STRIDE, "stride 12", "stride 14", "stride 16"),
                paper="0.4849",
            ),
        ),
    ),
    Group(
        "Ours: what the bundled networks are trained with",
        "nothing, these are not from the papers",
        (
            Row("AuM, linear patches", "small-aum"),
            Row("AuM, convolutional stem", "small-aum", (CONV,)),
            Row("AuM, convolutional stem, teacher", "small-aum", (CONV, *TAUGHT)),
            Row("the same without mix-up", "small-aum", (CONV, *TAUGHT, "mixup_probability=0")),
            Row("the same without SpecAugment", "small-aum", (CONV, *TAUGHT, "mask_mels=0", "mask_frames=0")),
            Row("the same, last weights for averaged ones", "small-aum", (CONV, *TAUGHT, "keep=last")),
            Row("AST, linear patches", "small-ast", SIDE_BY_SIDE),
            Row("AST, convolutional stem", "small-ast", (*SIDE_BY_SIDE, CONV)),
            Row("AST, convolutional stem, teacher", "small-ast", (*SIDE_BY_SIDE, CONV, *TAUGHT)),
        ),
    ),
)
