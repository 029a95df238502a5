"""Walks over an Ogg file's pages (RFC 3533, section 6): decoders skip what is damaged or missing without a word.

The whole file is read once for its checksums: about 0.1 seconds an hour of music.
"""

import struct
import zlib
from typing import BinaryIO

from model.decoding.errors import BrokenAudioError

_HEADER = struct.Struct("<4sBBqIIIB")  # magic, version, flags, position, stream, page number, checksum, segments
_FIRST_PAGE_FLAG = 2
_MAX_PAGES = 1_000_000  # five hours of the smallest pages in use; a file of tiny ones must not cost minutes
_SEARCH_BYTES = 65_536
_BIT_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def count_streams(file: BinaryIO, start: int) -> int | None:
    """Count the streams that Ogg pages from `start` hold, side by side or joined end to end; None: too many pages.

    Raises: BrokenAudioError when a page is damaged, missing, or cut off by the end of the file.
    """
    file.seek(start)
    streams = 0
    next_page: dict[int, int] = {}
    for _ in range(_MAX_PAGES):
        page = _read_page(file)
        if page is None:
            return streams
        flags, stream, number = page
        if flags & _FIRST_PAGE_FLAG:
            streams += 1
        elif next_page.get(stream) != number:
            raise BrokenAudioError("the ogg audio is damaged: a part of it is missing")
        next_page[stream] = (number + 1) % (1 << 32)
    return None


def _read_page(file: BinaryIO) -> tuple[int, int, int] | None:
    """Flags, stream and number of the next page; None where only the end, or bytes that are no page, follow."""
    header = file.read(_HEADER.size)
    if not header.startswith(b"OggS"[: len(header)]):
        _refuse_later_pages(file, header)
        return None
    if not header:
        return None
    if len(header) == _HEADER.size:
        _, _, flags, _, stream, number, checksum, segments = _HEADER.unpack(header)
        sizes = file.read(segments)
        body = file.read(sum(sizes))
        if len(sizes) == segments and len(body) == sum(sizes):
            if _checksum(header[:22] + bytes(4) + header[26:] + sizes + body) != checksum:
                raise BrokenAudioError("the ogg audio is damaged: a checksum is wrong")
            return flags, stream, number
    raise BrokenAudioError("the ogg audio is cut short: it ends inside a page; send the whole file")


def _refuse_later_pages(file: BinaryIO, junk: bytes) -> None:
    while junk:
        if b"OggS" in junk:
            raise BrokenAudioError("the ogg audio is damaged: there are foreign bytes between its pages")
        more = file.read(_SEARCH_BYTES)
        junk = junk[-3:] + more if more else b""


def _checksum(page: bytes) -> int:
    """Ogg's CRC: zlib's polynomial, but most significant bit first and starting from 0."""
    state = zlib.crc32(page.translate(_BIT_REVERSED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{state:032b}"[::-1], 2)
