"""The error table is complete, and a caller's mistakes are never answered as ours."""

import importlib
import pkgutil
from types import ModuleType

import pytest

import model
import server
from server.errors import INTERNAL, ROWS, row_of
from server.served_models import ServingError

CONTRACT = {
    "audio_too_large": {413},
    "audio_not_decodable": {415},
    "invalid_input": {422},
    "model_not_found": {404},
    "class_not_found": {404},
    "not_stored": {507},
    "unauthorized": {401},
    "forbidden": {403},
    "conflict": {409},
    "rate_limited": {429},
    "overloaded": {503},
    "not_ready": {503},
    "timeout": {504},
    "inference_failed": {500},
    "internal_error": {500},
    "client_left": {499},
}
# Command line and start-up only; no request can raise them.
NOT_FROM_REQUESTS = {"_GoneError", "CommandError", "SettingsFileError", "TracingError"}


def modules() -> list[ModuleType]:
    names = [
        "model.audio",
        "model.checkpoint",
        "model.decoding.errors",
        "model.own_classes",
        "model.teaching",
        "model.pipeline",
        "model.registry",
        "model.scores",
    ]
    names += [info.name for info in pkgutil.walk_packages(server.__path__, "server.")]
    return [importlib.import_module(name) for name in names]


def domain_exceptions() -> dict[str, type[Exception]]:
    found = {}
    for module in modules():
        for name, value in vars(module).items():
            own = isinstance(value, type) and value.__module__.split(".")[0] in (model.__name__, server.__name__)
            if own and issubclass(value, Exception):
                found[name] = value
    return found


def test_every_exception_of_the_domain_has_a_row() -> None:
    missing = [
        name
        for name, kind in domain_exceptions().items()
        if name not in NOT_FROM_REQUESTS and not any(ancestor in ROWS for ancestor in kind.__mro__)
    ]
    assert not missing


def test_every_row_follows_the_contract() -> None:
    for kind, row in ROWS.items():
        assert row.status in CONTRACT[row.error_type], kind
        assert row.status < 500 or row.status in (503, 504) or row.sentence, f"{kind} would reveal its own words"


def test_what_nobody_named_is_a_bug() -> None:
    assert row_of(ZeroDivisionError()) is INTERNAL
    assert row_of(ServingError("x")).error_type == "internal_error"


@pytest.mark.parametrize("kind", [ValueError, LookupError, RuntimeError, OSError])
def test_general_exceptions_have_no_row(kind: type[Exception]) -> None:
    assert kind not in ROWS, "a bug of ours would be answered as the caller's mistake"
