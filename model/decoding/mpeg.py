"""Finds MPEG audio (MP1, MP2, MP3) and ADTS AAC frames, which have no magic number, by their chain of headers.

Header layouts: ISO/IEC 11172-3 section 2.4.1.3, ISO/IEC 13818-3 (lower rates), ISO/IEC 13818-7 annex (ADTS).
"""

from typing import Literal

Kind = Literal["mp3", "aac"]

_CHAIN_FRAMES = 3  # one header matches about one random position in 4,000; three in a row do not happen by chance
_KBITS = {  # (is MPEG-1, layer) → kbit/s by index 1..14
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_PADDING_FRAMES = 4  # at most; what encoders put before and behind the sound, and decoders take away again
_MPEG1_RATES_HZ = (44_100, 48_000, 32_000)
_RATE_DIVISOR = {3: 1, 2: 2, 0: 4}  # version bits: MPEG-1, MPEG-2, MPEG-2.5


def find_first_frame(data: bytes, ends_here: bool) -> tuple[Kind, int] | None:
    """Find where a chain of frames begins: its kind and offset, or None.

    A chain is three frames of one kind, or fewer that start the data and fill it to the end of the file (`ends_here`).
    """
    offset = data.find(b"\xff")
    while offset >= 0:
        kind = _chain_kind(data, offset, ends_here)
        if kind is not None:
            return kind, offset
        offset = data.find(b"\xff", offset + 1)
    return None


def least_seconds(first_frame: bytes) -> float | None:
    """How long an MP3 is at least, if it opens with a Xing or Info frame that counts the others (flag 1)."""
    tag = max(first_frame.find(b"Xing", 0, 48), first_frame.find(b"Info", 0, 48))
    count = first_frame[tag + 4 : tag + 12]
    if tag < 0 or len(count) < 8 or not count[3] & 1:
        return None
    frames = max(0, int.from_bytes(count[4:], "big") - _PADDING_FRAMES)
    version, layer, sample_rate = _mpeg_layout(first_frame)
    return frames * _frame_samples(version, layer) / sample_rate


def _chain_kind(data: bytes, start: int, ends_here: bool) -> Kind | None:
    first = _frame(data[start : start + 6])
    offset, frames, frame = start, 0, first
    while frame is not None and first is not None and frame[0] == first[0]:
        frames += 1
        offset += frame[1]
        if frames == _CHAIN_FRAMES or (ends_here and start == 0 and offset >= len(data)):
            return first[0]
        frame = _frame(data[offset : offset + 6])
    return None


def _frame(header: bytes) -> tuple[Kind, int] | None:
    """The kind of frame that six bytes begin, and its length in bytes."""
    if len(header) < 6 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    if header[1] & 0xF6 == 0xF0:  # 12 sync bits and layer 0: ADTS
        size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
        return ("aac", size) if size > 7 and header[2] >> 2 & 15 < 13 else None
    size = _mpeg_frame_bytes(header)
    return ("mp3", size) if size else None


def _mpeg_frame_bytes(header: bytes) -> int:
    version, layer, sample_rate = _mpeg_layout(header)
    bitrate_index, padding = header[2] >> 4, header[2] >> 1 & 1
    if version == 1 or layer == 4 or not sample_rate or not 1 <= bitrate_index <= 14:
        return 0
    bits_per_second = 1000 * _KBITS[version == 3, layer][bitrate_index - 1]
    if layer == 1:
        return (12 * bits_per_second // sample_rate + padding) * 4
    return _frame_samples(version, layer) // 8 * bits_per_second // sample_rate + padding


def _mpeg_layout(header: bytes) -> tuple[int, int, int]:
    """Version bits, layer 1 to 3 (4 is invalid) and sample rate in Hz (0 is invalid)."""
    version, layer, rate_index = header[1] >> 3 & 3, 4 - (header[1] >> 1 & 3), header[2] >> 2 & 3
    sample_rate = 0 if rate_index == 3 else _MPEG1_RATES_HZ[rate_index] // _RATE_DIVISOR.get(version, 1)
    return version, layer, sample_rate


def _frame_samples(version: int, layer: int) -> int:
    if layer == 1:
        return 384
    return 576 if layer == 3 and version != 3 else 1152
