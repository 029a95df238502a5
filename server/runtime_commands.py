"""The `hark` commands about runtimes: `export`, and `bench runtimes`."""

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from server.console import CommandError, print_note, print_table

NO_LIMIT_SECONDS = 86_400.0


class Target(StrEnum):
    """What a checkpoint is exported to."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"


class ExportPrecision(StrEnum):
    """Arithmetic of an export; not every target has all."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    INT8 = "int8"


def export(
    checkpoint: Annotated[str, typer.Argument(help="A model's name or a checkpoint folder.")],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    to: Annotated[Target, typer.Option(help="The target.")] = Target.ONNX,
    precision: Annotated[
        ExportPrecision | None, typer.Option(help="Arithmetic; by default float32, for TensorRT bfloat16.")
    ] = None,
    clips: Annotated[
        Path | None, typer.Option(help="Manifest of clips to compare with, instead of sounds made in code.")
    ] = None,
) -> None:
    """Export an AST, SSAST or CNN checkpoint for a faster runtime, and check that it still gives the same scores."""
    command = [sys.executable, "-m", "export.command", checkpoint, str(folder), "--to", to.value]
    command += ["--precision", precision.value] if precision else []
    command += ["--clips", str(clips)] if clips else []
    code = subprocess.run(command).returncode  # a process of its own: this room does not import that one
    raise typer.Exit(code if code in (0, 2) else 1)


def bench_runtimes(names: list[str]) -> None:
    """Measure every runtime that can serve these models here, remember the results and print them."""
    from model.checkpoint import CheckpointError
    from model.registry import UnknownModelError
    from server.serving_errors import ServingError

    for name in names:
        try:
            rows = _measure(name)
        except UnknownModelError as error:
            raise typer.BadParameter(str(error)) from error
        except (CheckpointError, ServingError) as error:
            raise CommandError(str(error)) from error
        print_table(("model", "runtime", "precision", "median_ms", "verdict"), rows)


def _measure(name: str) -> list[tuple[str, ...]]:
    from model.checkpoint import load
    from server.devices import choose_devices
    from server.runtime_choice import candidates, rank
    from server.served_models import measure_runtimes
    from server.settings import Settings
    from server.source import Source

    settings = Settings(runtime_measure_seconds=NO_LIMIT_SECONDS)
    source = Source(name, settings.runtime_folder, load)
    if source.export is not None:
        raise CommandError(
            f"{source.folder} is an export for {source.export.runtime} alone; name its checkpoint instead"
        )
    backbone = source.described.config.backbone
    wished = candidates(backbone, choose_devices(settings.device)[0], "auto", "auto")
    print_note(f"measuring {len(wished)} runtimes with {source.described.name}; exporting takes a while the first time")
    measured = measure_runtimes(source, wished, settings)
    best = rank(wished, measured)[0]
    return [
        (
            source.described.name,
            result.runtime,
            result.precision,
            "" if result.seconds is None else f"{result.seconds * 1000:.1f}",
            result.refused or ("chosen" if result.candidate == best else ""),
        )
        for result in measured
    ]
