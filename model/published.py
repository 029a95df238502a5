"""The published checkpoints that `hark pull` knows: where their authors host them, and under which licence.

Facts from the authors' own pages: Hugging Face's MIT organisation, YuanGongND/ast:README.md,
YuanGongND/ssast:pretrained_model/README.md, kaistmm/Audio-Mamba-AuM:README.md and
SarthakYadav/audio-mamba-official:README.md; the licence is that of the repository.
`python -m model.published` prints the table of docs/published-checkpoints.md.
"""

from dataclasses import dataclass

HUB_PAGE = "https://huggingface.co"
AST_PAGE = "https://github.com/YuanGongND/ast"
SSAST_PAGE = "https://github.com/YuanGongND/ssast/tree/main/pretrained_model"
AUM_PAGE = "https://github.com/kaistmm/Audio-Mamba-AuM"
SSAM_PAGE = "https://drive.google.com/drive/folders/1l6_8e1TFEfnobwUMIbA7-aKw2FwlBhho"


@dataclass(frozen=True)
class HubRepo:
    """A repository on the Hugging Face hub: weights, config.json and preprocessor_config.json."""

    repo: str
    revision: str = "main"


@dataclass(frozen=True)
class WebFile:
    """One file behind a URL; `filename` is what it is called here, and its ending tells the format."""

    url: str
    filename: str


@dataclass(frozen=True)
class ByHand:
    """Hosted where only a person with a browser gets it."""

    host: str


@dataclass(frozen=True)
class Published:
    """One checkpoint: `format` is the `--from` of its converter, `page` where its authors present it.

    `labels` is a CSV of class names where they do not come with Hark. `sha256` is that of the weights, where their
    authors state it; the hub states it for its own files, so there it need not stand here.
    """

    name: str
    backbone: str
    format: str
    source: HubRepo | WebFile | ByHand
    page: str
    licence: str
    about: str
    labels: WebFile | None = None
    sha256: str | None = None


def find_published(name: str) -> Published | None:
    """Find a checkpoint by its name here or by its id on the hub (MIT/ast-...); None if there is none."""
    if name in PUBLISHED:
        return PUBLISHED[name]
    by_repo = (entry for entry in PUBLISHED.values() if isinstance(entry.source, HubRepo) and entry.source.repo == name)
    return next(by_repo, None)


def markdown_table() -> str:
    """Write every checkpoint as a row of a Markdown table."""
    rows = [
        f"| `{entry.name}` | {entry.about} | `{entry.format}` | {_describe_source(entry)} | {entry.licence} "
        f"| {entry.sha256 or ('stated by the hub' if isinstance(entry.source, HubRepo) else 'not published')} |"
        for entry in PUBLISHED.values()
    ]
    return "\n".join(["| name | what it is | format | source | licence | sha256 |", "|---|---|---|---|---|---|", *rows])


def _describe_source(entry: Published) -> str:
    match entry.source:
        case HubRepo(repo=repo):
            return f"[{repo}]({entry.page})"
        case WebFile(url=url):
            return f"[file]({url}), [page]({entry.page})"
        case ByHand(host=host):
            return f"[{host}]({entry.page}), by hand"


def _hugging_face(name: str, about: str) -> Published:
    repo = f"MIT/{name}"
    return Published(name, "ast", "hf-ast", HubRepo(repo), f"{HUB_PAGE}/{repo}", "BSD-3-Clause", about)


def _ast(key: str, filename: str, about: str) -> Published:
    name = f"ast-{filename.removesuffix('.pth').replace('_', '-')}"
    return Published(name, "ast", "ast", _dropbox(key, filename), AST_PAGE, "BSD-3-Clause", about)


def _ssast(name: str, key: str, filename: str, about: str) -> Published:
    return Published(name, "ssast", "ssast", _dropbox(key, filename), SSAST_PAGE, "BSD-3-Clause", about)


def _aum(start: str, dataset: str, drive_id: str, result: str) -> Published:
    name = f"aum-{start}-{dataset}"
    dataset_title, labels = _AUM_DATASETS[dataset]
    # the address that Google Drive's own "download anyway" button leads to; the plain one answers with a page
    url = f"https://drive.usercontent.google.com/download?id={drive_id}&export=download&confirm=t"
    about = f"{_AUM_STARTS[start]}, {dataset_title}, {result}"
    return Published(name, "aum", "aum", WebFile(url, f"{name}.pth"), AUM_PAGE, "BSD-3-Clause", about, labels)


def _ssam(size: str) -> Published:
    about = f"{size}, pre-trained on AudioSet, gives features only"
    return Published(f"ssam-{size}", "ssam", "ssam", ByHand("Google Drive folder"), SSAM_PAGE, "MIT", about)


def _dropbox(key: str, filename: str) -> WebFile:
    return WebFile(f"https://www.dropbox.com/s/{key}/{filename}?dl=1", filename)


def _aum_labels(commit: str, path: str) -> WebFile:
    return WebFile(f"https://raw.githubusercontent.com/kaistmm/Audio-Mamba-AuM/{commit}/{path}", "labels.csv")


_AUM_STARTS = {
    "base-scratch": "base Fo-Bi from scratch",
    "small-imagenet": "small Bi-Bi from ImageNet",
    "base-audioset": "base Fo-Bi from AudioSet",
}
_VGGSOUND_LABELS = "examples/inference/datafiles/class_labels_indices.csv"
_VOXCELEB_LABELS = "exps/voxceleb/data/class_labels_indices.csv"
_AUM_DATASETS = {
    "audioset": ("AudioSet", None),
    "as20k": ("AudioSet-20K", None),
    "vggsound": ("VGGSound", _aum_labels("45671a218c903a55377726b05455f4eb9a0459b9", _VGGSOUND_LABELS)),
    "voxceleb": ("VoxCeleb", _aum_labels("efe5cd156967f439857710cd31c1168006c71fe8", _VOXCELEB_LABELS)),
    "speechcommands": ("Speech Commands V2", None),
}

_ENTRIES = (
    _hugging_face("ast-finetuned-audioset-10-10-0.4593", "AudioSet, stride 10, averaged weights, mAP 0.459"),
    _hugging_face("ast-finetuned-audioset-10-10-0.450", "AudioSet, stride 10, mAP 0.450"),
    _hugging_face("ast-finetuned-audioset-10-10-0.448", "AudioSet, stride 10, mAP 0.448"),
    _hugging_face("ast-finetuned-audioset-10-10-0.448-v2", "AudioSet, stride 10, mAP 0.448, another run"),
    _hugging_face("ast-finetuned-audioset-12-12-0.447", "AudioSet, stride 12, mAP 0.447"),
    _hugging_face("ast-finetuned-audioset-14-14-0.443", "AudioSet, stride 14, mAP 0.443"),
    _hugging_face("ast-finetuned-audioset-16-16-0.442", "AudioSet, stride 16, mAP 0.442"),
    _hugging_face("ast-finetuned-speech-commands-v2", "Speech Commands V2, 35 words, accuracy 98.1 %"),
    _ast("ca0b1v2nlxzyeb4", "audioset_10_10_0.4593.pth", "AudioSet, stride 10, averaged weights, mAP 0.459"),
    _ast("1tv0hovue1bxupk", "audioset_10_10_0.4495.pth", "AudioSet, stride 10, mAP 0.450"),
    _ast("6u5sikl4b9wo4u5", "audioset_10_10_0.4483.pth", "AudioSet, stride 10, mAP 0.448"),
    _ast("kt6i0v9fvfm1mbq", "audioset_10_10_0.4475.pth", "AudioSet, stride 10, mAP 0.448, another run"),
    _ast("snfhx3tizr4nuc8", "audioset_12_12_0.4467.pth", "AudioSet, stride 12, mAP 0.447"),
    _ast("z18s6pemtnxm4k7", "audioset_14_14_0.4431.pth", "AudioSet, stride 14, mAP 0.443"),
    _ast("mdsa4t1xmcimia6", "audioset_16_16_0.4422.pth", "AudioSet, stride 16, mAP 0.442"),
    _ast("q0tbqpwv44pquwy", "speechcommands_10_10_0.9812.pth", "Speech Commands V2, 35 words, accuracy 98.1 %"),
    _aum("base-scratch", "audioset", "1QgnyvGYxKd-q6twXf4i05jZA5xFIFs8j", "mAP 0.327"),
    _aum("base-scratch", "as20k", "11cbL_vizFFD7i6RvErSSEi9E3gRRIQWA", "mAP 0.141"),
    _aum("base-scratch", "vggsound", "1eAn8WEkfnB5pdon8o3PZMwFBsuuPu2L0", "accuracy 43.0 %"),
    _aum("base-scratch", "voxceleb", "1Y3LboHg1RYLsuoKfOT3u4odF6opJZXlw", "accuracy 33.1 %"),
    _aum("base-scratch", "speechcommands", "1wLFjYZxvJs2YBvDLYqOxVhMJnPKfhX5Z", "accuracy 94.4 %"),
    _aum("small-imagenet", "audioset", "1z-JdZTy52gW7RzhiTQozn6Ly2W4DOs9b", "mAP 0.397"),
    _aum("small-imagenet", "as20k", "1XDlZEHe0xQXnOLFh3CJVaS5cmZW_7C-t", "mAP 0.292"),
    _aum("small-imagenet", "vggsound", "11mEtjfHjkGGFjxVHvXIAX60KrBgWwWhQ", "accuracy 49.6 %"),
    _aum("small-imagenet", "voxceleb", "1NoherLBbOP5eE1iMQ8joas1k0lYwAmd8", "accuracy 41.8 %"),
    _aum("small-imagenet", "speechcommands", "1jhUKxzUo2TMHrd1a2vojjv1x9De_HyFe", "accuracy 97.6 %"),
    _aum("base-audioset", "vggsound", "1spsJXncpEXHKmIvDcB7ddkcgrzARpEeK", "accuracy 46.8 %"),
    _aum("base-audioset", "voxceleb", "1dqWSIKTvA0wqKy-XTXYn-MUourMtHGrQ", "accuracy 41.8 %"),
    _aum("base-audioset", "speechcommands", "1ikkU4COOqeCNCVTn4b7LulNr9p4Efr4M", "accuracy 94.8 %"),
    _ssam("tiny"),
    _ssam("small"),
    _ssam("base"),
    _ssast("ssast-base-patch-400", "ewrzpco95n9jdz6", "SSAST-Base-Patch-400.pth", "base, patches, 400 masked"),
    _ssast("ssast-base-frame-400", "nx6nl4d4bl71sm8", "SSAST-Base-Frame-400.pth", "base, frames, 400 masked"),
    _ssast("ssast-base-patch-250", "mxrm9qog6aj8hif", "SSAST-Base-Patch-250.pth", "base, patches, 250 masked"),
    _ssast("ssast-base-frame-250", "4e6l7ulhwrfoana", "SSAST-Base-Frame-250.pth", "base, frames, 250 masked"),
    _ssast("ssast-small-patch-400", "i24w446rl9pkf05", "SSAST-Small-Patch-400.pth", "small, patches, 400 masked"),
    _ssast("ssast-tiny-patch-400", "fkbtf78y94113wz", "SSAST-Tiny-Patch-400.pth", "tiny, patches, 400 masked"),
    _ssast("ssast-tiny-frame-400", "rx7g60ruzawffzv", "SSAST-Tiny-Frame-400.pth", "tiny, frames, 400 masked"),
    _ssast("ssast-ablation-100-masked", "0oyrtfbjzkwho2p", "audio_model_100m.pth", "base, patches, 100 masked"),
    _ssast("ssast-ablation-discriminative", "znuzgwf2zvrpjkr", "audio_model_dis.pth", "base, InfoNCE alone"),
    _ssast("ssast-ablation-generative", "u6ws5fjrid10x4p", "audio_model_gen.pth", "base, reconstruction alone"),
    _ssast("ssast-ablation-as20k", "y6x2ck2ca3tb7d9", "audio_model_as20k.pth", "base, on AudioSet-20K alone"),
    _ssast("ssast-ablation-audioset", "m9p782df3faql1q", "audio_model_as.pth", "base, on AudioSet alone"),
    _ssast(
        "ssast-ablation-librispeech", "f4bn2qelu3m8ksu", "audio_model_librispeech.pth", "base, on LibriSpeech alone"
    ),
)

PUBLISHED: dict[str, Published] = {entry.name: entry for entry in _ENTRIES}

if __name__ == "__main__":
    print(markdown_table())
