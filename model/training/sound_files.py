"""The sound files in a folder, told by their endings."""

import os
from collections.abc import Iterator
from pathlib import Path

SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".webm", ".mp4", ".mkv", ".aac")


def sounds_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name without ending, path) of every sound file in a folder and those inside it.

    Raises: OSError for a folder that cannot be listed.
    """
    for place, _, names in os.walk(folder, onerror=_stop):
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() in SOUNDS:
                yield stem, Path(place, name)


def _stop(error: OSError) -> None:
    raise error
