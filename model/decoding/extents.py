"""Does the file reach as far as its own header says? Players shrug at a file cut short; here it is refused.

Only lengths are read, never sound: a handful of seeks for most files. FLAC, MP3 and AAC have no such length, or one in
samples, which their decoders compare; Ogg's pages have their own module.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from model.decoding.errors import BrokenAudioError, check_layout
from model.decoding.files import read_at
from model.decoding.formats import AudioFormat

_MAX_ELEMENTS = 500_000  # then stop looking: a file of nothing but tiny elements must not cost minutes
_STREAMED_SIZES = (0xFFFF_FFFF, 0x7FFF_F000)  # what FFmpeg and SoX write into a pipe: "until it ends"
_EBML_SEGMENT, _EBML_CLUSTER = 0x1853_8067, 0x1F43_B675


class _Element(NamedTuple):
    name: bytes
    start: int  # of its payload
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


def check_extent(file: BinaryIO, audio_format: AudioFormat) -> None:
    """Compare the lengths in a container's header with the file that is there.

    Raises: BrokenAudioError when the file is shorter, declares no samples, or (WAV) declares an absurd layout.
    """
    file_bytes = file.seek(0, 2)
    match audio_format.name:
        case "wav":
            end = _wav_end(file, file_bytes)
        case "aiff":
            end = _aiff_end(file)
        case "w64":
            end = _unpack_at(file, 16, "<Q", default=0)
        case "au":
            end = _au_end(file)
        case "caf":
            end = _last_end(_caf_chunks(file), file_bytes)
        case "mp4":
            end = _last_end(_mp4_boxes(file, file_bytes), file_bytes)
        case "matroska" | "webm":
            end = _ebml_end(file, file_bytes)
        case _:
            return
    if end > file_bytes:
        raise BrokenAudioError(
            f"the {audio_format.name} audio is cut short: its header declares {end:,} bytes,"
            f" but only {file_bytes:,} are there; send the whole file"
        )


def _wav_end(file: BinaryIO, file_bytes: int) -> int:
    order = ">" if read_at(file, 0, 4) == b"RIFX" else "<"
    long_data_bytes = 0
    for chunk in _iff_chunks(file, order):
        if chunk.name == b"ds64":
            long_data_bytes = _unpack_at(file, chunk.start + 8, "<Q", default=0)
        elif chunk.name == b"fmt ":
            check_layout(
                _unpack_at(file, chunk.start + 4, order + "I", 0), _unpack_at(file, chunk.start + 2, order + "H", 0)
            )
        elif chunk.name == b"data":
            return _wav_data_end(file, chunk, order, long_data_bytes, file_bytes)
        if chunk.end > file_bytes:
            return chunk.end
    return 0


def _wav_data_end(file: BinaryIO, data: _Element, order: str, long_data_bytes: int, file_bytes: int) -> int:
    riff_bytes = _unpack_at(file, 4, order + "I", default=0)
    if data.size == 0:
        raise BrokenAudioError("the wav audio is empty: its header declares no samples; was the recording interrupted?")
    if data.size == 0xFFFF_FFFF and long_data_bytes:  # RF64: the true length stands in ds64
        return data.start + long_data_bytes
    if data.size in _STREAMED_SIZES and riff_bytes >= data.size:
        return file_bytes
    return data.end


def _aiff_end(file: BinaryIO) -> int:
    return next((chunk.end for chunk in _iff_chunks(file, ">") if chunk.name == b"SSND"), 0)


def _au_end(file: BinaryIO) -> int:
    size = _unpack_at(file, 8, ">I", default=0)
    return 0 if size in _STREAMED_SIZES else _unpack_at(file, 4, ">I", default=0) + size


def _iff_chunks(file: BinaryIO, order: str) -> Iterator[_Element]:
    position = 12
    for _ in range(_MAX_ELEMENTS):
        header = read_at(file, position, 8)
        if len(header) < 8:
            return
        name, size = struct.unpack(order + "4sI", header)
        chunk = _Element(name, position + 8, size)
        yield chunk
        position = chunk.end + size % 2  # chunks start at even positions


def _caf_chunks(file: BinaryIO) -> Iterator[_Element]:
    position = 8
    for _ in range(_MAX_ELEMENTS):
        header = read_at(file, position, 12)
        if len(header) < 12:
            return
        name, size = struct.unpack(">4sq", header)
        if size < 0:  # -1: the last chunk, until the file ends
            return
        chunk = _Element(name, position + 12, size)
        yield chunk
        position = chunk.end


def _mp4_boxes(file: BinaryIO, file_bytes: int) -> Iterator[_Element]:
    position = 0
    for _ in range(_MAX_ELEMENTS):
        header = read_at(file, position, 16)
        if len(header) < 8 or not header[4:8].isalnum():
            return
        size = int.from_bytes(header[:4], "big")
        if size == 1 and len(header) == 16:
            size = int.from_bytes(header[8:], "big")
        elif size == 0:  # the last box, until the file ends
            size = file_bytes - position
        if size < 8:
            return
        yield _Element(header[4:8], position, size)
        position += size


def _last_end(elements: Iterator[_Element], file_bytes: int) -> int:
    end = 0
    for element in elements:
        end = element.end
        if end > file_bytes:
            break
    return end


def _ebml_end(file: BinaryIO, file_bytes: int) -> int:
    """Where the last element should end (RFC 8794); live recordings leave segments and clusters without a size."""
    position = 0
    for _ in range(_MAX_ELEMENTS):
        header = read_at(file, position, 12)
        id_bytes = 9 - header[0].bit_length() if header and header[0] else 9
        if id_bytes > 4 or len(header) <= id_bytes or not header[id_bytes]:
            break
        size_bytes = 9 - header[id_bytes].bit_length()
        body = position + id_bytes + size_bytes
        if len(header) < id_bytes + size_bytes:
            return body
        size = int.from_bytes(header[id_bytes : id_bytes + size_bytes], "big") - (1 << 7 * size_bytes)
        if size == (1 << 7 * size_bytes) - 1:
            if int.from_bytes(header[:id_bytes], "big") not in (_EBML_SEGMENT, _EBML_CLUSTER):
                break
            position = body
            continue
        position = body + size
        if position > file_bytes:
            return position
    return 0


def _unpack_at(file: BinaryIO, offset: int, layout: str, default: int) -> int:
    data = read_at(file, offset, struct.calcsize(layout))
    return int(struct.unpack(layout, data)[0]) if len(data) == struct.calcsize(layout) else default
