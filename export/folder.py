"""The self-describing folder that an export is: the server reads it from disk and needs nothing else.

export.json          runtime, precision, the source weights' sha256, versions, measured parity, sha256 of the files
model.onnx           or model.xml and model.bin, or model.plan
config.json labels.json golden.safetensors README.md     the checkpoint's own
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from errno import EEXIST, ENOTDIR, ENOTEMPTY
from pathlib import Path
from typing import Any

from export.clips import Clips
from export.errors import ExportError, NotExportableError
from export.parity import Exported, Parity, measure_parity
from model.checkpoint import CARD, CONFIG, GOLDEN, LABELS, Checkpoint, file_sha256

FORMAT = 4
DESCRIPTION = "export.json"

EXPORTABLE = ("ast", "ssast", "cnn")

Write = Callable[[Checkpoint, str, Path], dict[str, Any]]
"""Writes a model in a precision into a folder; answers what export.json should say beside the common things."""

Open = Callable[[Path], Exported]
"""Opens the folder's model to be compared with its checkpoint."""


def make_export(
    checkpoint: Checkpoint,
    folder: str | Path,
    runtime: str,
    precision: str,
    write: Write,
    open_model: Open,
    clips: Clips | None = None,
) -> Parity:
    """Write an export and compare it with its checkpoint; the folder appears whole, or not at all.

    Raises: NotExportableError for Mamba networks; ParityError if the export's answers drift; ExportError if the folder
    is there already.
    """
    folder = Path(folder).absolute()
    check_exportable(checkpoint)
    if folder.exists():
        raise _occupied(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        details = write(checkpoint, precision, new)
        parity = measure_parity(checkpoint, open_model(new), clips)
        parity.check(precision)
        for name in (CONFIG, LABELS, GOLDEN):
            shutil.copy(checkpoint.folder / name, new / name)
        files = {path.name: file_sha256(path) for path in sorted(new.iterdir())}
        shutil.copy(checkpoint.folder / CARD, new / CARD)  # prose, which may be edited
        about = {
            "format": FORMAT,
            "runtime": runtime,
            "precision": precision,
            "source_weights_sha256": checkpoint.weights_sha256,
            **details,
            "parity": asdict(parity),
            "files": files,
        }
        (new / DESCRIPTION).write_text(json.dumps(about, indent=2) + "\n")
        try:
            new.rename(folder)
        except OSError as error:
            if error.errno not in (ENOTEMPTY, EEXIST, ENOTDIR):
                raise
            raise _occupied(folder) from error  # somebody was quicker
    return parity


def _occupied(folder: Path) -> ExportError:
    return ExportError(f"{folder} exists already; name a new folder")


def check_exportable(checkpoint: Checkpoint) -> None:
    """Raises: NotExportableError saying why and what to use instead."""
    if checkpoint.config.backbone not in EXPORTABLE:
        raise NotExportableError(
            f"{checkpoint.name} is a {checkpoint.config.backbone} model: ONNX, OpenVINO and TensorRT have no selective"
            " scan, so Mamba networks are served by the torch runtime, on their native scan; export an AST, SSAST or"
            " CNN checkpoint"
        )


def check_precision(checkpoint: Checkpoint, runtime: str, precision: str, known: tuple[str, ...]) -> None:
    """Raises: NotExportableError naming the precisions that the target, or the network, has."""
    if precision not in known:
        raise NotExportableError(f"{runtime} exports come in {', '.join(known)}, not in {precision}")
    if checkpoint.config.backbone == "cnn" and precision != "float32":  # its norms join its convolutions in float32
        raise NotExportableError(f"a CNN is exported in float32 only, not in {precision}")


def metadata(checkpoint: Checkpoint, precision: str) -> dict[str, str]:
    """What a graph says about itself to tools that never see its folder."""
    config = checkpoint.config
    return {
        "model": checkpoint.name,
        "backbone": config.backbone,
        "precision": precision,
        "source_weights_sha256": checkpoint.weights_sha256,
        "sample_rate": str(config.features.sample_rate),
        "window_seconds": str(config.window_seconds),
        "activation": config.activation,
        "input": "normalised log-mel (batch, frames, mels)",
    }
