"""Sony Wave64 written into a pipe: its sizes were left open, in numbers no decoder accepts, and are filled in here.

riff GUID (16) | size (8) | wave GUID (16) | chunk GUID (16) | size (8, its header included) | ... to multiples of 8
"""

import struct
from collections.abc import Mapping
from typing import BinaryIO, cast

from model.decoding.files import read_at

STREAMED_SIZE = (1 << 63) - 1  # FFmpeg writes this for the sound and -1 for the whole
_FIRST_CHUNK, _CHUNK_HEADER_BYTES = 40, 24
_MAX_CHUNKS = 1_000


class PatchedFile:
    """A seekable file some of whose bytes read otherwise: `patches` are bytes by their offset."""

    def __init__(self, file: BinaryIO, patches: Mapping[int, bytes]) -> None:
        self._file = file
        self._patches = patches
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes from here, all of them where it is negative."""
        start = self._file.tell()
        data = self._file.read(size)
        for offset, patch in self._patches.items():
            first, last = max(start, offset), min(start + len(data), offset + len(patch))
            if first < last:
                data = data[: first - start] + patch[first - offset : last - offset] + data[last - start :]
        return data


def fill_in_sizes(file: BinaryIO) -> BinaryIO:
    """The file as it is, or, where its sizes were left open, with those that it turned out to have."""
    whole = _size_at(file, 16)
    if whole is None or whole < STREAMED_SIZE:
        return file
    file_bytes = file.seek(0, 2)
    data = _find_data(file)
    if data is None:
        return file
    patches = {16: struct.pack("<Q", file_bytes), data + 16: struct.pack("<Q", file_bytes - data)}
    return cast(BinaryIO, PatchedFile(file, patches))


def _find_data(file: BinaryIO) -> int | None:
    """Where the chunk of sound starts, if its size was left open."""
    position = _FIRST_CHUNK
    for _ in range(_MAX_CHUNKS):
        size = _size_at(file, position + 16)
        if size is None or size < _CHUNK_HEADER_BYTES:
            return None
        if read_at(file, position, 4) == b"data":
            return position if size >= STREAMED_SIZE else None
        position += -(-size // 8) * 8
    return None


def _size_at(file: BinaryIO, offset: int) -> int | None:
    data = read_at(file, offset, 8)
    return int(struct.unpack("<Q", data)[0]) if len(data) == 8 else None
