"""Plain YAML values to frozen dataclasses, strictly: unknown and missing fields and wrong types are refused by name."""

import difflib
import math
import re
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """YAML where 1e-3 is a number, as in YAML 1.2, and where no name is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value if not key.tag.endswith(":merge")]
        if twice := [name for place, name in enumerate(names) if name in names[:place]]:
            raise yaml.constructor.ConstructorError(
                problem=f"{twice[0]!r} is given twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


_EXPONENT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789."))


def read_yaml(text: str) -> Any:
    """Plain values from YAML.

    Raises: yaml.YAMLError if it is none, or gives a name twice.
    """
    return yaml.load(text, _Loader)


class FieldError(ValueError):
    """A value does not fit; the message names the field."""


def build(kind: type[T], values: Any, where: str = "") -> T:
    """Make the dataclass `kind` from a mapping of its fields; `where` is the path to it, for messages.

    Raises: FieldError for anything but a mapping of exactly its fields, each of its type.
    """
    prefix = f"{where}." if where else ""
    if not isinstance(values, dict):
        raise FieldError(f"{where or 'a recipe'} must be a mapping of fields, not {values!r}")
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    if unknown := [str(name) for name in values if name not in known]:
        raise FieldError(f"unknown fields: {', '.join(_with_hint(prefix, name, known) for name in sorted(unknown))}")
    required = [n for n, item in known.items() if item.default is MISSING and item.default_factory is MISSING]
    if missing := [prefix + name for name in required if name not in values]:
        raise FieldError(f"lacks the fields {', '.join(sorted(missing))}")
    kinds = get_type_hints(kind)
    return kind(**{name: convert(kinds[name], value, prefix + name) for name, value in values.items()})


def convert(kind: Any, value: Any, where: str) -> Any:
    """Give `value` as the annotated type `kind`: whole numbers serve as floats, lists as tuples, mappings as classes.

    Raises: FieldError if it is of another type.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return build(kind, value, where)
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        return convert(next(option for option in inner if option is not NoneType), value, where)
    if origin is Literal:
        if value not in inner or isinstance(value, bool):
            raise FieldError(f"{where} must be one of {', '.join(map(str, inner))}, not {value!r}")
        return value
    if origin is tuple:
        items = _require(list, value, where, "a list")
        return tuple(convert(inner[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict:
        items = _require(dict, value, where, "a mapping")
        return {
            _require(str, key, where, "keyed by text"): _item(inner[1], v, f"{where}.{key}") for key, v in items.items()
        }
    return _scalar(kind, value, where)


def _item(kind: Any, value: Any, where: str) -> Any:
    return value if kind is Any else convert(kind, value, where)


def _scalar(kind: Any, value: Any, where: str) -> Any:
    allowed = (int, float) if kind is float else kind
    if not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool):
        raise FieldError(f"{where} must be of type {kind.__name__}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise FieldError(f"{where} must be a finite number, not {value!r}")
    return kind(value)


def _require(kind: type, value: Any, where: str, wanted: str) -> Any:
    if not isinstance(value, kind):
        raise FieldError(f"{where} must be {wanted}, not {value!r}")
    return value


def _with_hint(prefix: str, name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"{prefix}{name}" + (f" (did you mean {close[0]}?)" if close else "")
