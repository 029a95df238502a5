"""Folders as they come: ESC-50 (karolpiczak/ESC-50), Speech Commands (arXiv 1804.03209), and sounds without labels.

ESC-50-master/          meta/esc50.csv      filename,fold,target,category,...,src_file,take
                        audio/*.wav
speech_commands/        backward/*.wav ... zero/*.wav       SPEAKER_nohash_TAKE.wav
                        validation_list.txt, testing_list.txt       what is not for training, one file a line
                        _background_noise_/                 no class of its own
"""

from pathlib import Path

from model.convert.label_sets import SPEECH_COMMANDS
from model.labels import LabelSet
from model.training.clips import Clip, ManifestError
from model.training.data import read_rows
from model.training.labelled import Corpus
from model.training.sound_files import sounds_below

ESC50_META = "meta/esc50.csv"
LISTS = {"validation_list.txt": "validation", "testing_list.txt": "testing"}


def read_esc50(folder: Path, labels: LabelSet | None) -> Corpus:
    """Read ESC-50's folder: each clip has its class as its label and its official fold; order is the target numbers'.

    Raises: ManifestError naming the row that is wrong; OSError if the table cannot be read.
    """
    path = folder / ESC50_META
    clips: list[Clip] = []
    classes: dict[int, str] = {}
    for line, row in read_rows(path, ("filename", "fold", "target", "category", "src_file")):
        if not row["fold"].isdecimal() or not row["target"].isdecimal():
            raise ManifestError(f"{path} line {line}: fold and target must be whole numbers")
        if classes.setdefault(int(row["target"]), row["category"]) != row["category"]:
            raise ManifestError(f"{path} line {line}: target {row['target']} has a second category, {row['category']}")
        file = folder / "audio" / row["filename"]
        clips.append(Clip(file, (row["category"],), row["src_file"], int(row["fold"]), ""))
    own = [category for _, category in sorted(classes.items())]
    if len(set(own)) < len(own):
        raise ManifestError(f"{path} gives one category several targets")
    return Corpus(clips, labels or LabelSet.from_mids(own))


def read_speech_commands(folder: Path, labels: LabelSet | None) -> Corpus:
    """Read Speech Commands' folder: each clip has its word as its label, its official part, its speaker as its group.

    All 35 words come in the order of the published checkpoints, any others in alphabetical order. A listed file that
    is not there stays in the corpus, so that it is counted as missing when it is read.

    Raises: ManifestError for a word without clips, or a list that names another word; OSError if a list cannot be read.
    """
    words = sorted(place.name for place in folder.iterdir() if place.is_dir() and place.name[0] not in "_.")
    parts = _read_lists(folder, set(words))
    names = sorted({f"{file.parent.name}/{file.name}" for word in words for file in (folder / word).glob("*.wav")})
    heard = {name.split("/")[0] for name in names}
    if silent := [word for word in words if word not in heard]:
        raise ManifestError(f"{folder / silent[0]} has no .wav file")
    clips = [_command(folder, name, parts.get(name, "training")) for name in sorted({*names, *parts})]
    if labels is None:
        labels = LabelSet.from_mids(SPEECH_COMMANDS if set(words) == set(SPEECH_COMMANDS) else words)
    return Corpus(clips, labels)


def read_sounds(folder: Path, labels: LabelSet | None) -> Corpus:
    """Read every sound file below a folder, without labels, in the order of their paths: for pre-training."""
    files = sorted(path for _, path in sounds_below(folder))
    return Corpus([Clip(file, (), str(file.relative_to(folder)), None, "") for file in files], labels or LabelSet(()))


def _command(folder: Path, name: str, part: str) -> Clip:
    word, file = name.split("/")
    return Clip(folder / word / file, (word,), file.split("_nohash_")[0], None, "", part)


def _read_lists(folder: Path, words: set[str]) -> dict[str, str]:
    """Part of every file "word/name.wav" that a list names."""
    parts: dict[str, str] = {}
    for name, part in LISTS.items():
        path = folder / name
        if not path.exists():
            raise ManifestError(f"{path} is missing; Speech Commands' split is made of {' and '.join(LISTS)}")
        for line, text in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
            file = text.strip()
            if not file:
                continue
            if file.count("/") != 1 or file.split("/")[0] not in words:
                raise ManifestError(f"{path} line {line}: {file!r} is not a file in a word's folder")
            if file in parts:
                raise ManifestError(f"{path} line {line}: {file} is listed twice")
            parts[file] = part
    return parts
