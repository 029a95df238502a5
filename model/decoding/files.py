"""Reads at an offset, and the face of a file that native decoders get to see."""

from typing import BinaryIO


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Up to `size` bytes from `offset`; fewer where the file ends."""
    file.seek(offset)
    return file.read(size)


class NativeFile:
    """A seekable file without a name, from its beginning, whose impossible seeks fail quietly.

    A damaged header sends decoders anywhere, before the first byte included. An exception inside their callbacks would
    be printed to stderr (libsndfile) or stand in for the decoder's own error (PyAV); both understand -1.
    """

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self._file = file
        self.read = file.read
        self.tell = file.tell
        if hasattr(file, "readinto"):
            self.readinto = file.readinto

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move like any file; -1, and no move, where that is impossible."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, OverflowError, ValueError):
            return -1
