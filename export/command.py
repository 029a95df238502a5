"""`python -m export.command CHECKPOINT OUT`: what `hark export` runs, in a process of its own.

The server's room, where the command line lives, never imports this one; what they share is the folder on disk.
"""

import argparse
import sys
from pathlib import Path

from model.checkpoint import load
from model.registry import find_checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Export one checkpoint; gives the exit code and says in one line on stderr how it went."""
    parser = argparse.ArgumentParser(prog="hark export")
    parser.add_argument("checkpoint", help="A model's name or a checkpoint folder.")
    parser.add_argument("folder", type=Path, help="The folder to write; it must not exist.")
    given = parser.parse_args(arguments)
    try:
        from export.to_onnx import to_onnx  # its packages are an extra

        parity = to_onnx(load(find_checkpoint(given.checkpoint)), given.folder)
    except ImportError as error:
        return _say(f"{error}; install the cpu extra in Hark's folder: pip install '.[cpu]'", 1)
    except LookupError as error:
        return _say(str(error), 2)
    except ValueError as error:  # CheckpointError and ExportError
        return _say(str(error), 1)
    except OSError as error:
        return _say(f"{error.filename or given.folder}: {error.strerror or error}", 1)
    return _say(f"wrote {given.folder}; its logits differ by at most {parity.max_abs_diff:.2g} on the golden clip", 0)


def _say(message: str, code: int) -> int:
    print(f"hark: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
