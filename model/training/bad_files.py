"""Files that could not be read: each counted once, the first ones named, and fatal only where a recipe asks."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from model.training.clips import ClipError, ManifestError

BadFileAction = Literal["skip", "stop"]
NAMED = 20
"""How many bad files are named as they turn up; the rest are only counted, for a large corpus lacks thousands."""


class BadFiles:
    """The tally of one run: `reasons` holds every bad file and why it could not be read.

    Raises: ValueError for an action that is neither "skip" nor "stop".
    """

    def __init__(self, action: BadFileAction = "skip", report: Callable[[str], None] = print) -> None:
        if action not in get_args(BadFileAction):
            raise ValueError(f"on_bad_file must be skip or stop, not {action!r}")
        self.action = action
        self.report = report
        self.reasons: dict[Path, str] = {}

    def add(self, file: Path, reason: str) -> None:
        """Count one bad file; a file that turns up again, as in every epoch, counts once.

        Raises: ManifestError if bad files are to stop the run.
        """
        if self.action == "stop":
            raise ManifestError(f"{file} cannot be read: {reason}")
        if file in self.reasons:
            return
        self.reasons[file] = reason
        if len(self.reasons) <= NAMED:
            self.report(f"left out {file}: {reason}")
        elif len(self.reasons) == NAMED + 1:
            self.report("left out more files; they are only counted from here on")

    def add_error(self, error: ClipError) -> None:
        """Count the file of an error; see `add`."""
        self.add(error.file, str(error))

    def summarise(self, clips: int) -> None:
        """Report how many of so many clips were bad; nothing where none was."""
        if self.reasons:
            self.report(f"{len(self.reasons)} of {clips} clips could not be read")
