"""Native decoders may seek anywhere; only they are told that it failed."""

import io

from model.decoding.files import NativeFile, read_at


def test_impossible_seeks_fail_quietly_and_do_not_move() -> None:
    file = NativeFile(io.BytesIO(b"sound"))
    file.seek(2)
    assert [file.seek(-1), file.seek(1 << 70)] == [-1, -1]
    assert file.read(2) == b"un"
    assert file.tell() == 4


def test_a_native_file_starts_at_the_beginning_and_has_no_name() -> None:
    original = io.BytesIO(b"sound")
    original.seek(3)
    assert NativeFile(original).read() == b"sound"
    assert not hasattr(NativeFile(original), "name")


def test_reading_beyond_the_end_gives_less() -> None:
    assert read_at(io.BytesIO(b"sound"), 3, 10) == b"nd"
    assert read_at(io.BytesIO(b"sound"), 30, 10) == b""
