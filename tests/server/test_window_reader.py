"""An upload is closed by the step that reaches its end, on its thread; one that is left before, when it is let go."""

import io

from model.windows import WindowGrid
from server.uploads import Upload
from server.window_reader import Reading, WindowReader
from tests.server.harness import RATE, encode, sine

READING = Reading(RATE, WindowGrid(RATE, RATE), max_seconds=60)


def test_the_last_step_closes_the_upload() -> None:
    reader, file = make_reader(3)
    assert len(reader.read(3)) == 3
    assert not reader.exhausted, "whether there is more shows only at the next step"
    assert not file.closed
    assert reader.read(1) == []
    assert reader.exhausted
    assert reader.closed
    assert file.closed
    reader.close()


def test_a_step_that_ends_short_closes_the_upload_at_once() -> None:
    reader, file = make_reader(2)
    assert len(reader.read(3)) == 2
    assert reader.closed
    assert file.closed


def test_an_upload_left_in_the_middle_is_closed_on_demand() -> None:
    reader, file = make_reader(5)
    reader.read(2)
    reader.close()
    assert file.closed
    assert reader.read(2) == []


def make_reader(seconds: float) -> tuple[WindowReader, io.BytesIO]:
    sound = encode(sine(seconds))
    file = io.BytesIO(sound)
    return WindowReader(Upload(file, len(sound)), READING), file
