"""What settings must fulfil together, and where they may come from: a file's keys, and variables that exist."""

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from server.settings import Settings

VARIABLES_READ_ELSEWHERE = {"HARK_CACHE"}  # model/registry.py
# What Kubernetes puts into every pod beside a Service named "hark".
SERVICE_LINK = re.compile(r"HARK_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)", re.IGNORECASE)


class SettingsFileError(ValueError):
    """The settings file cannot be read, or holds something that is no setting."""


def check_variables(environment: Mapping[str, str], settings: Collection[str]) -> None:
    """A misspelt variable is refused rather than ignored.

    Raises: ValueError.
    """
    ours = sorted(name for name in environment if name.upper().startswith("HARK_"))
    links = [name for name in ours if SERVICE_LINK.fullmatch(name)]
    links = [name for name in links if name.upper() != "HARK_PORT" or "://" in environment[name]]
    if links:
        raise ValueError(
            f"{links[0]} comes from a Kubernetes Service named 'hark' and is no setting; put enableServiceLinks: false"
            " into the pod's spec, or give the Service another name"
        )
    known = {f"HARK_{name}".upper() for name in settings} | VARIABLES_READ_ELSEWHERE
    if unknown := [name for name in ours if name.upper() not in known]:
        raise ValueError(f"there is no setting {', '.join(unknown)}; docs/configuration.md lists all")


def read_settings_file(path: Path, settings: Collection[str]) -> dict[str, Any]:
    """The settings in a TOML file, by the names they have in the environment without HARK_, in small letters.

    Raises: SettingsFileError.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors put a mark before it
    except OSError as error:
        raise SettingsFileError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsFileError(f"the settings file {path} is not TOML: {error}") from error
    if unknown := sorted(set(values) - set(settings) | {"config"} & set(values)):
        raise SettingsFileError(
            f"the settings file {path}: there is no setting {', '.join(unknown)}; docs/configuration.md lists all"
        )
    return values


def contradictions(settings: "Settings") -> Iterator[str]:
    """What settings that are each fine cannot mean together; one sentence each."""
    given = settings.model_fields_set
    for small, large in (
        ("max_json_bytes", "max_upload_bytes"),
        ("spool_memory_bytes", "max_upload_bytes"),
        ("max_batch_audio_seconds", "max_queue_audio_seconds"),
    ):
        if small in given and (getattr(settings, small) or 0) > getattr(settings, large):
            yield f"{small} must not exceed {large}, which is {getattr(settings, large):g}"
    if settings.fake_window_seconds and settings.runtime != "fake":
        yield f"fake_window_seconds is for the runtime fake, but the runtime is {settings.runtime}"
    if {key.get_secret_value() for key in settings.api_keys} & {key.get_secret_value() for key in settings.admin_keys}:
        yield "a key stands in both api_keys and admin_keys; an admin key may tag anyway"
    if settings.model_root is not None and not settings.model_root.expanduser().is_dir():
        yield f"model_root {settings.model_root} is not a folder"
    if settings.classes_folder is not None and settings.classes_folder.expanduser().is_file():
        yield f"classes_folder {settings.classes_folder} is a file, not a folder"
    if settings.otlp_endpoint is not None and not _is_http(settings.otlp_endpoint):
        yield "otlp_endpoint must be an address such as http://collector:4318"


def doubts(settings: "Settings") -> Iterator[str]:
    """What is allowed but seldom meant; the start says it and goes on."""
    if settings.timeout_seconds is not None and settings.timeout_seconds > settings.drain_seconds:
        yield (
            f"timeout_seconds is {settings.timeout_seconds:g} but drain_seconds {settings.drain_seconds:g}: requests"
            " that are still in time may be cut off at the end"
        )
    if settings.admin_keys and not settings.api_keys and settings.host not in ("127.0.0.1", "::1", "localhost"):
        yield "admin_keys guard the models, but without api_keys everybody who reaches this address may tag"


def _is_http(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        return False
