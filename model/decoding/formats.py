"""First bytes → which container this is; names and content types are never consulted."""

from dataclasses import dataclass, replace
from typing import BinaryIO

from model.decoding.errors import BrokenAudioError, NotAudioError
from model.decoding.files import read_at
from model.decoding.mpeg import find_first_frame, least_seconds
from model.decoding.ogg import count_streams


@dataclass(frozen=True)
class AudioFormat:
    """One container we decode, and how far its header can be believed."""

    name: str
    demuxer: str  # FFmpeg's name; always forced, so that no playlist or network demuxer can be chosen by content
    soundfile: bool = False  # libsndfile first, FFmpeg for what it refuses
    declares_duration: bool = True  # False where FFmpeg only estimates it from the bit rate
    shortfall_seconds: float | None = None  # decode this much less than declared: broken; None: not comparable
    has_gaps: bool = False  # timestamps may jump; the hole is silence
    has_tags_between: bool = False  # files are joined end to end, tags and all, and still play
    least_seconds: float | None = None  # MP3: what its first frame counts, as found in this file


# libsndfile where it is faster (measured, 60 s stereo at 48 kHz: WAV 11 ms against 32, FLAC 57 against 66), and for
# Vorbis (88 against 58), whose last samples FFmpeg loses in short clips. FFmpeg is faster for Opus (108 against 283),
# and on par for MP3, where libsndfile plays only the first of several joined files and writes warnings to stderr.
WAV = AudioFormat("wav", "wav", soundfile=True)
W64 = AudioFormat("w64", "w64", soundfile=True)
AIFF = AudioFormat("aiff", "aiff", soundfile=True)
AU = AudioFormat("au", "au", soundfile=True)
CAF = AudioFormat("caf", "caf", soundfile=True)
FLAC = AudioFormat("flac", "flac", soundfile=True, shortfall_seconds=0.0)
OGG = AudioFormat("ogg", "ogg")
OGG_VORBIS = replace(OGG, soundfile=True)  # one stream; libsndfile plays no more than the first
MP3 = AudioFormat("mp3", "mp3", declares_duration=False, shortfall_seconds=0.0, has_tags_between=True)
AAC = AudioFormat("aac", "aac", declares_duration=False, has_tags_between=True)
AMR = AudioFormat("amr", "amr", declares_duration=False)
MP4 = AudioFormat("mp4", "mov", has_gaps=True)
MATROSKA = AudioFormat("matroska", "matroska", has_gaps=True)
WEBM = replace(MATROSKA, name="webm")

# (offset, magic bytes, second offset, second magic bytes)
_MAGIC: tuple[tuple[int, bytes, int, bytes, AudioFormat], ...] = (
    (0, b"RIFF", 8, b"WAVE", WAV),
    (0, b"RIFX", 8, b"WAVE", WAV),
    (0, b"RF64", 8, b"WAVE", WAV),
    (0, b"BW64", 8, b"WAVE", WAV),
    (0, b"riff\x2e\x91\xcf\x11", 24, b"wave", W64),
    (0, b"FORM", 8, b"AIFF", AIFF),
    (0, b"FORM", 8, b"AIFC", AIFF),
    (0, b".snd", 0, b"", AU),
    (0, b"caff", 0, b"", CAF),
    (0, b"fLaC", 0, b"", FLAC),
    (0, b"#!AMR", 0, b"", AMR),
    (4, b"ftyp", 0, b"", MP4),
    (4, b"moov", 0, b"\0", MP4),  # QuickTime before 2001 has no ftyp
    (4, b"mdat", 0, b"", MP4),
    (4, b"wide", 0, b"\0\0\0", MP4),
)
_EBML = b"\x1a\x45\xdf\xa3"
_VORBIS_HEADER = b"\x01vorbis"
_MPEG_SEARCH_BYTES = 65_536  # FFmpeg, too, gives up after this much junk before the first frame


def sniff(file: BinaryIO) -> AudioFormat:
    """Tell the container from the first bytes of a seekable file.

    Raises: BrokenAudioError when there are no bytes (or Ogg pages are damaged, since all are looked at), NotAudioError
    when they are no audio we know.
    """
    start = _skip_id3(file)
    head = read_at(file, start, 64)
    if not head:
        raise BrokenAudioError(f"the audio is empty: there are no bytes {'behind its tags' if start else 'in it'}")
    audio_format = _match_ogg(file, start, head) or _match_magic(head) or _match_mpeg(file, start)
    if audio_format is None:
        raise NotAudioError(
            "the bytes are not audio that can be decoded here;"
            " send WAV, FLAC, AIFF, AU, CAF, Ogg, Opus, MP3, AAC, AMR, M4A, MP4, MOV, WebM or Matroska"
        )
    return audio_format


def _match_magic(head: bytes) -> AudioFormat | None:
    if head.startswith(_EBML):
        return WEBM if b"webm" in head else MATROSKA
    for offset, magic, second_offset, second_magic, audio_format in _MAGIC:
        if head.startswith(magic, offset) and head.startswith(second_magic, second_offset):
            return audio_format
    return None


def _match_ogg(file: BinaryIO, start: int, head: bytes) -> AudioFormat | None:
    if not head.startswith(b"OggS"):
        return None
    return OGG_VORBIS if count_streams(file, start) == 1 and _VORBIS_HEADER in head else OGG


def _match_mpeg(file: BinaryIO, start: int) -> AudioFormat | None:
    data = read_at(file, start, _MPEG_SEARCH_BYTES)
    found = find_first_frame(data, ends_here=len(data) < _MPEG_SEARCH_BYTES)
    if found is None:
        return None
    kind, offset = found
    if kind == "aac":
        return AAC
    return replace(MP3, least_seconds=least_seconds(data[offset:]))


def _skip_id3(file: BinaryIO) -> int:
    """Where the ID3v2 tags end: 10 bytes of header each, the last four being the size in 7-bit bytes (id3.org, 3.1)."""
    start = 0
    while len(header := read_at(file, start, 10)) == 10 and header.startswith(b"ID3"):
        size = sum((byte & 0x7F) << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=True))
        footer = 10 if header[5] & 0x10 else 0
        start += 10 + size + footer
    return start
