"""Plain values become dataclasses only where every field fits."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from model.training.strict import FieldError, build


@dataclass(frozen=True)
class Inner:
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outer:
    share: float
    kind: Literal["red", "green"] = "red"
    name: str | None = None
    inner: Inner = field(default_factory=Inner)
    extras: dict[str, str] = field(default_factory=dict)
    anything: dict[str, Any] = field(default_factory=dict)
    flag: bool = False


def test_values_become_the_annotated_types() -> None:
    made = build(Outer, {"share": 1, "kind": "green", "inner": {"numbers": [1, 2]}, "anything": {"a": [1, None]}})
    assert made == Outer(1.0, "green", None, Inner((1, 2)), {}, {"a": [1, None]})
    assert isinstance(made.share, float)
    assert build(Outer, {"share": 0.5, "name": None}).name is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "must be a mapping"),
        ({}, "lacks the fields share"),
        ({"share": 1, "shear": 2}, r"unknown fields: shear \(did you mean share\?\)"),
        ({"share": "1"}, "share must be of type float, got '1'"),
        ({"share": True}, "share must be of type float"),
        ({"share": 1, "flag": 1}, "flag must be of type bool"),
        ({"share": 1, "kind": "blue"}, "kind must be one of red, green, not 'blue'"),
        ({"share": 1, "name": 3}, "name must be of type str"),
        ({"share": 1, "inner": 3}, "inner must be a mapping"),
        ({"share": 1, "inner": {"numbers": 3}}, "inner.numbers must be a list"),
        ({"share": 1, "inner": {"numbers": [1, "x"]}}, r"inner.numbers\[1\] must be of type int"),
        ({"share": 1, "extras": {"a": 1}}, "extras.a must be of type str"),
        ({"share": 1, "extras": {1: "a"}}, "extras must be keyed by text"),
        ({"share": 1, 5: "a"}, "unknown fields: 5"),
    ],
)
def test_everything_else_is_refused_by_name(values: Any, message: str) -> None:
    with pytest.raises(FieldError, match=message):
        build(Outer, values)
