"""Files that are there whole, old or new, at every moment."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely, on the disk itself, or not at all; what stood there stays until then.

    Raises: OSError naming the file if the disk refuses.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        error.filename = str(path)  # a write that fails names none
        raise
    finally:
        partial.unlink(missing_ok=True)
