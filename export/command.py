"""`python -m export.command CHECKPOINT OUT`: what `hark export` runs, in a process of its own.

The server's room, where the command line lives, never imports this one; what they share is the folder on disk.
"""

import argparse
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

from export.clips import read_clips
from export.errors import MissingPackageError, ParityError
from export.folder import check_exportable
from export.parity import Parity
from model.checkpoint import Checkpoint, load
from model.registry import find_checkpoint

TARGETS = {"onnx": "cpu", "openvino": "cpu", "tensorrt": "gpu", "onnx-tensorrt": "gpu"}
"""What a checkpoint can be exported to, and the extra that brings its packages."""

DRIFTS = 3
"""Exit code for an export that computes something else than the checkpoint, which another try would not mend."""

DEFAULT_PRECISIONS = {"onnx": "float32", "openvino": "float32", "tensorrt": "bfloat16", "onnx-tensorrt": "float16"}


def main(arguments: list[str] | None = None) -> int:
    """Export one checkpoint; gives the exit code and says in one line on stderr how it went."""
    given = _parser().parse_args(arguments)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of torchvision's operators, which nobody needs
    try:
        parity = export(load(find_checkpoint(given.checkpoint)), given)
    except ImportError as error:
        extra = TARGETS[given.to]
        return _say(f"{error}; install the {extra} extra in Hark's folder: pip install '.[{extra}]'", 1)
    except LookupError as error:
        return _say(str(error), 2)
    except ParityError as error:
        return _say(str(error), DRIFTS)
    except ValueError as error:  # CheckpointError and ExportError
        return _say(str(error), 1)
    except OSError as error:
        return _say(f"{error.filename or given.folder}: {error.strerror or error}", 1)
    return _say(f"wrote {given.folder}; {in_words(parity)}", 0)


def in_words(parity: Parity) -> str:
    """What the comparison with the checkpoint found."""
    words = (
        f"over {parity.clips} clips its logits differ by at most {parity.max_abs_diff:.2g}, scores above 0.1 by at most"
        f" {parity.max_score_diff:.2g}, and the best label is the same for {parity.top1_agreement:.1%}"
    )
    return words if parity.map_diff is None else f"{words}; mean average precision changes by {parity.map_diff:+.4f}"


def export(checkpoint: Checkpoint, given: argparse.Namespace) -> Parity:
    """Check first what needs no package, then let the target's module do it; raises as that module does."""
    check_exportable(checkpoint)
    precision = given.precision or DEFAULT_PRECISIONS[given.to]
    options: dict[str, Any] = {"clips": read_clips(given.clips, checkpoint) if given.clips else None}
    if given.to == "tensorrt":
        options |= {"timing_cache": given.timing_cache, "largest_batch": given.largest_batch, "progress": _note}
    try:
        function = f"to_{given.to.replace('-', '_')}"
        module = importlib.import_module(f"export.{function}")
    except MissingPackageError:
        raise
    except ImportError as error:
        raise MissingPackageError(f"a package that exporting to {given.to} needs is missing: {error}") from error
    _note(f"exporting {checkpoint.name} to {given.to} in {precision}")
    return getattr(module, function)(checkpoint, given.folder, precision, **options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hark export")
    parser.add_argument("checkpoint", help="A model's name or a checkpoint folder.")
    parser.add_argument("folder", type=Path, help="The folder to write; it must not exist.")
    parser.add_argument("--to", choices=TARGETS, default="onnx", help="The target.")
    parser.add_argument("--precision", help="Arithmetic of the large products; which there are depends on the target.")
    parser.add_argument(
        "--clips", type=Path, help="Manifest of clips to compare with (200 at most), instead of sounds made in code."
    )
    parser.add_argument("--largest-batch", type=int, default=64, help="Most windows at once of a TensorRT plan.")
    parser.add_argument("--timing-cache", type=Path, help="File in which TensorRT keeps its measurements.")
    return parser


def _note(message: str) -> None:
    print(f"hark: {message}", file=sys.stderr, flush=True)


def _say(message: str, code: int) -> int:
    _note(message)
    return code


if __name__ == "__main__":
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    sys.exit(main())
