"""What may be loaded while serving: a bundled or pulled model's name, or a checkpoint folder below the allowed root."""

from pathlib import Path

import structlog

from model.checkpoint import CheckpointError
from model.registry import UnknownModelError, bundled_models, find_published, is_checkpoint, pulled_models
from server.model_pool import ModelLoadError
from server.served_models import ServedModel, ServingError, load_model
from server.settings import Settings

log = structlog.get_logger()


def load_source(source: str, settings: Settings) -> ServedModel:
    """Loads, checks and warms up one model; takes seconds, so call it on a thread.

    Raises: ModelLoadError with the reason in one sentence.
    """
    place = resolve_source(source, settings.model_root)
    try:
        return load_model(place, settings)
    except (ServingError, UnknownModelError, CheckpointError) as error:
        log.warning("model not loaded", source=source, reason=str(error))
        raise ModelLoadError(f"{source!r} cannot be served: {error}") from error


def resolve_source(source: str, root: Path | None) -> str:
    """The name, or the folder's path with every link followed.

    Nothing outside the root is looked at: its being there or not makes no difference to the answer.

    Raises: ModelLoadError.
    """
    published = find_published(source)
    if source in bundled_models() or (published.name if published else source) in pulled_models():
        return source
    if root is None:
        raise ModelLoadError(
            f"no model {source!r} is bundled or pulled; to load folders while serving, set HARK_MODEL_ROOT"
        )
    folder = _checkpoint_below(root, source)
    if folder is None:
        raise ModelLoadError(f"no model {source!r}: neither bundled nor pulled, nor a checkpoint folder below the root")
    return str(folder)


def _checkpoint_below(root: Path, source: str) -> Path | None:
    """The folder; None also where one of its files is a link out of the root: a model card is shown to callers."""
    try:
        base = root.expanduser().resolve()
        folder = (base / source).resolve()
        if folder == base or not folder.is_relative_to(base) or not is_checkpoint(folder):
            return None
        inside = all(file.resolve().is_relative_to(base) for file in folder.iterdir())
    except (OSError, RuntimeError, ValueError):  # a circle of links, or a name that no file can have
        return None
    return folder if inside else None
