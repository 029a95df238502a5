"""What a run shows: lines where there is no terminal, curves where they are wanted, nothing from other processes."""

import json
from pathlib import Path

import pytest

from model.training import progress
from model.training.progress import Curves, Display


def test_off_a_terminal_there_is_a_line_a_minute_and_one_per_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Display(lines.append, 100, 0) as display:
        for step in range(1, 8):
            now += 20
            display.step(step, 0, [2.0] * step, 0.1)
        display.epoch({"epoch": 1, "loss": 1.5}, 7)
    assert lines[:2] == ["step 3 of 100, epoch 1, loss 2.0000", "step 6 of 100, epoch 1, loss 2.0000"]
    assert json.loads(lines[2]) == {"epoch": 1, "loss": 1.5}


def test_only_the_first_process_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(print, 3, 0, quiet=True) as display:
        display.step(1, 0, [1.0], 0.1)
        display.epoch({"epoch": 1}, 1)
    assert capsys.readouterr() == ("", "")


def test_curves_hold_the_points_of_a_run(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Display(lambda _: None, 20, 0, Curves(tmp_path, 0)) as display:
        for step in range(1, 21):
            display.step(step, 0, [float(step)], 0.5)
        display.epoch({"epoch": 1, "map": 0.25}, 20)
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    assert [(point.step, point.value) for point in events.Scalars("loss")] == [(1, 1.0), (10, 10.0), (20, 20.0)]
    assert events.Scalars("epoch/map")[0].value == 0.25
