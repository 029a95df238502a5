"""What a run shows while it lasts: a bar on a terminal, a line a minute elsewhere, and curves for TensorBoard."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 60.0


class Display:
    """Follows the steps of a run; `report` takes the lines, of which an epoch's is JSON."""

    def __init__(
        self, report: Callable[[str], None], total: int, done: int, curves: "Curves | None" = None, quiet: bool = False
    ) -> None:
        self._report, self._total, self._done, self._curves, self._quiet = report, total, done, curves, quiet
        self._said = time.monotonic()
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal)
        self._on_terminal = console.is_terminal
        self._task = self._bar.add_task("training", total=total, completed=done)

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._curves:
            self._curves.close()

    def step(self, step: int, epoch: int, losses: list[float], rate: float) -> None:
        """Show that step `step` of the run is finished."""
        self._done = step
        self._bar.update(self._task, completed=step, description=f"epoch {epoch + 1}")
        if self._curves and (step % 10 == 0 or step == 1):
            self._curves.add({"loss": losses[-1], "learning_rate": rate}, step)
        if not self._on_terminal and time.monotonic() - self._said >= LINE_SECONDS:
            self._said = time.monotonic()
            recent = losses[-50:]
            self.say(f"step {step} of {self._total}, epoch {epoch + 1}, loss {sum(recent) / len(recent):.4f}")

    def epoch(self, line: dict[str, Any], step: int) -> None:
        """Show what an epoch came to."""
        self._said = time.monotonic()
        if self._curves:
            self._curves.add({f"epoch/{name}": value for name, value in line.items() if name != "epoch"}, step)
        self.say(json.dumps(line))

    def measured(self, values: dict[str, float], step: int) -> None:
        """Show what was measured in the middle of an epoch."""
        if self._curves:
            self._curves.add(values, step)
        self.say(json.dumps({"step": step, **values}))

    def say(self, line: str) -> None:
        """Report a line above the bar."""
        if self._quiet:
            return
        if self._bar.live.is_started:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._report(line)


class Curves:
    """Scalars for TensorBoard, in the folder `events` of a run."""

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # only who asks for curves needs tensorboard

        self._writer = SummaryWriter(str(folder / "events"), purge_step=step)

    def add(self, values: dict[str, float], step: int) -> None:
        """Add one point to each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write out what is still in memory."""
        self._writer.close()
