"""AudioSet's segment lists (research.google.com/audioset/download.html) over a folder of clips that were cut from them.

    # YTID, start_seconds, end_seconds, positive_labels
    --PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"

People who download AudioSet name the clips in different ways; for the row above any of these is found, with any usual
ending, anywhere below the folder: `--PJHxphWEs_30.000`, `--PJHxphWEs_30000`, `--PJHxphWEs_30`, the same with
the end behind it, `--PJHxphWEs`, and all of these with `Y` before them (as in AST's own lists).
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from model.labels import LabelSet, audioset_labels
from model.training.clips import Clip, ManifestError
from model.training.labelled import Corpus, find_mids
from model.training.sound_files import sounds_below


def read_segments(path: Path, clips_folder: Path | None, labels: LabelSet | None) -> Corpus:
    """Read a list of segments; the clips lie in `clips_folder`, else in the folder beside the list that has its name.

    A segment whose clip is not there stays in the corpus, so that it is counted as missing when it is read.

    Raises: ManifestError for a wrong row, an unknown label, or if the folder has none of the clips; OSError if the
    list cannot be read.
    """
    folder = clips_folder or path.with_suffix("")
    if not folder.is_dir():
        raise ManifestError(f"{folder} is not a folder; say where the clips of {path.name} are (--clips)")
    files = dict(sorted(sounds_below(folder), reverse=True))
    chosen = labels or audioset_labels()
    clips = [_read_segment(path, line, cells, folder, files, chosen) for line, cells in _rows(path)]
    if not clips:
        raise ManifestError(f"{path} lists no clips")
    if not set(files.values()) & {clip.file for clip in clips}:
        raise ManifestError(f"{folder} has none of the {len(clips)} clips, such as {clips[0].file.name}.wav")
    return Corpus(clips, chosen)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every row that is not a comment."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines, skipinitialspace=True)
            for cells in reader:
                if cells and not cells[0].startswith("#"):
                    yield reader.line_num, cells
    except (UnicodeDecodeError, csv.Error) as error:
        raise ManifestError(f"{path} is not a CSV file in UTF-8: {error}") from error


def _read_segment(
    path: Path, line: int, cells: list[str], folder: Path, files: dict[str, Path], labels: LabelSet
) -> Clip:
    if len(cells) != 4:
        raise ManifestError(f"{path} line {line} has {len(cells)} cells, not YTID, start, end and quoted labels")
    video, start, end, names = cells
    try:
        seconds = float(start), float(end)
    except ValueError as error:
        raise ManifestError(f"{path} line {line}: start and end must be seconds, not {start!r} and {end!r}") from error
    stems = _stems(video, *seconds)
    file = next((files[stem] for stem in stems if stem in files), folder / stems[0])
    return Clip(file, find_mids(names, labels, path, f"line {line}"), video, None, "")


def _stems(video: str, start: float, end: float) -> list[str]:
    """The names that a segment's clip may have, the usual ones first."""
    times = []
    for first, last in ((f"{start:.3f}", f"{end:.3f}"), (f"{start * 1000:.0f}", f"{end * 1000:.0f}")):
        times += [f"_{first}", f"_{first}_{last}"]
    times += [f"_{start:g}", f"_{start:g}_{end:g}", ""]
    return [f"{prefix}{video}{time}" for time in times for prefix in ("", "Y")]
