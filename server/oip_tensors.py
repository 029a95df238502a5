"""The Open Inference Protocol's bodies: JSON with tensors inside, or JSON followed by the tensors' bytes.

    JSON    {"id", "parameters", "inputs": [{"name", "shape", "datatype", "data"}], "outputs": [...]}
    binary  the same, with "parameters": {"binary_data_size": n} in place of "data"; the bytes follow back to back, and
            the header Inference-Header-Content-Length says where the JSON ends

Protocol: kserve/open-inference-protocol; binary tensors: triton-inference-server/server:docs/protocol.
Nothing is allocated for what a body declares: sizes are compared with the bytes that came.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt

from server.json_body import read_json
from server.parameters import InvalidParameterError, parse_parameters

LENGTH_BYTES = 4  # before every element of a BYTES tensor, little-endian
MAX_TENSORS = 16
WHOLE_NUMBER = re.compile(r"[0-9]{1,18}")  # Python itself refuses to read thousands of digits
NullIsEmpty = BeforeValidator(lambda value: {} if value is None else value)
Parameters = Annotated[dict[str, Any], NullIsEmpty]
Name = Annotated[str, Field(max_length=256)]


class InputHeader(BaseModel):
    """What the JSON says of one input."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    shape: list[Annotated[StrictInt, Field(ge=0)]] = Field(max_length=8)
    datatype: Name
    parameters: Parameters = {}
    data: list[Any] | None = None


class OutputHeader(BaseModel):
    """What the JSON says of one output that is asked for."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    parameters: Parameters = {}


class RequestHeader(BaseModel):
    """The JSON of an inference request."""

    model_config = ConfigDict(extra="forbid")

    id: Annotated[str, Field(max_length=1024)] = ""
    parameters: Parameters = {}
    inputs: list[InputHeader] = Field(min_length=1, max_length=MAX_TENSORS)
    outputs: Annotated[list[OutputHeader], Field(max_length=MAX_TENSORS)] | None = None


@dataclass(frozen=True)
class Tensor:
    """A tensor with its values: an array, or for BYTES a list of the elements in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: np.ndarray | Sequence[bytes]
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class InferRequest:
    """A whole request; `binary` says that its JSON came with a length, so that tensors' bytes may follow."""

    id: str
    parameters: Mapping[str, Any]
    inputs: tuple[Tensor, ...]
    outputs: tuple[OutputHeader, ...]


def parse_request(body: bytes, header_length: str | None, max_elements: int) -> InferRequest:
    """Reads a body whose JSON has `header_length` bytes, or is all of it.

    `max_elements` bounds a BYTES tensor's elements. Raises: InvalidParameterError naming what is wrong.
    """
    json_bytes = _json_length(header_length, len(body))
    view = memoryview(body)
    header = parse_parameters(RequestHeader, read_json(view[:json_bytes]))
    rest = view[json_bytes:]
    inputs = []
    for declared in header.inputs:
        mine, rest = _cut(declared, rest)
        inputs.append(_tensor(declared, mine, max_elements))
    if len(rest):
        raise InvalidParameterError(
            f"{len(rest)} bytes follow the last tensor; binary_data_size must cover all of them"
        )
    return InferRequest(header.id, header.parameters, tuple(inputs), tuple(header.outputs or ()))


def render_answer(
    head: Mapping[str, Any], outputs: Sequence[Tensor], binary: Sequence[bool]
) -> tuple[bytes, int | None]:
    """The answer's body, and the length of its JSON where tensors' bytes follow."""
    chunks = []
    rendered = []
    for tensor, as_bytes in zip(outputs, binary, strict=True):
        shown: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}
        if as_bytes:
            chunks.append(_to_bytes(tensor))
            shown["parameters"] = {"binary_data_size": len(chunks[-1])}
        else:
            shown["data"] = _to_json(tensor)
        rendered.append(shown)
    text = orjson.dumps({**head, "outputs": rendered}, option=orjson.OPT_SERIALIZE_NUMPY)
    return b"".join([text, *chunks]), len(text) if chunks else None


def _json_length(header_length: str | None, body_bytes: int) -> int:
    if header_length is None:
        return body_bytes
    length = int(header_length) if WHOLE_NUMBER.fullmatch(header_length) else -1
    if not 0 < length <= body_bytes:
        raise InvalidParameterError(
            f"Inference-Header-Content-Length must be from 1 to the body's {body_bytes} bytes,"
            f" not {header_length[:20]!r}"
        )
    return length


def _cut(declared: InputHeader, rest: memoryview) -> tuple[memoryview | None, memoryview]:
    """This input's bytes, and those behind them; None where its values stand in the JSON."""
    size = declared.parameters.get("binary_data_size")
    if (size is None) == (declared.data is None):
        raise InvalidParameterError(
            f"input {declared.name!r} needs either 'data' or the parameter 'binary_data_size', and not both"
        )
    if size is None:
        return None, rest
    if type(size) is not int or size < 0:
        raise InvalidParameterError(f"input {declared.name!r}: binary_data_size must be a whole number from 0 on")
    if size > len(rest):
        raise InvalidParameterError(
            f"input {declared.name!r} declares {size} bytes, but only {len(rest)} are left of the body; send it whole"
        )
    return rest[:size], rest[size:]


def _tensor(declared: InputHeader, binary: memoryview | None, max_elements: int) -> Tensor:
    name, shape = declared.name, tuple(declared.shape)
    values: np.ndarray | list[bytes]
    if declared.datatype == "FP32":
        values = _floats_of_json(declared) if binary is None else _floats_of_bytes(name, binary)
    elif declared.datatype == "BYTES":
        if math.prod(shape) > max_elements:
            raise InvalidParameterError(f"input {name!r}: shape {list(shape)} has more than {max_elements} elements")
        values = _strings_of_json(declared) if binary is None else _elements_of_bytes(name, binary, max_elements)
    else:
        raise InvalidParameterError(f"input {name!r}: datatype {declared.datatype!r} is not read; send FP32 or BYTES")
    if len(values) != math.prod(shape):
        raise InvalidParameterError(
            f"input {name!r}: shape {list(shape)} means {math.prod(shape)} elements, but {len(values)} came"
        )
    return Tensor(name, declared.datatype, shape, values, declared.parameters)


def _floats_of_bytes(name: str, binary: memoryview) -> np.ndarray:
    if len(binary) % 4:
        raise InvalidParameterError(f"input {name!r}: {len(binary)} bytes are no whole number of FP32 values")
    return np.frombuffer(binary, "<f4")


def _floats_of_json(declared: InputHeader) -> np.ndarray:
    """Flat or nested as the shape says; only numbers: numpy reads strings too, and makes room for the longest."""
    rows = _rows(declared)
    if any(not set(map(type, row)) <= {int, float} for row in rows):
        raise InvalidParameterError(
            f"input {declared.name!r}: FP32 data must be numbers, flat or in rows as in the shape"
        )
    with np.errstate(over="ignore"):
        try:
            parts = [np.array(row, np.float32) for row in rows]
        except OverflowError as error:
            raise InvalidParameterError(f"input {declared.name!r} holds numbers that FP32 cannot") from error
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _strings_of_json(declared: InputHeader) -> list[bytes]:
    elements = [element for row in _rows(declared) for element in row]
    if not all(isinstance(element, str) for element in elements):
        raise InvalidParameterError(f"input {declared.name!r}: BYTES data in JSON must be strings")
    return [element.encode() for element in elements]


def _rows(declared: InputHeader) -> list[list[Any]]:
    """The data as rows: one where it is flat; where it is nested, as many and as long as the shape says."""
    data = declared.data or []
    if not any(isinstance(row, list) for row in data):
        return [data]
    shape = declared.shape
    if (
        len(shape) != 2
        or len(data) != shape[0]
        or any(not isinstance(row, list) or len(row) != shape[1] for row in data)
    ):
        raise InvalidParameterError(f"input {declared.name!r}: nested data must have the rows that shape {shape} says")
    return data


def _elements_of_bytes(name: str, binary: memoryview, max_elements: int) -> list[bytes]:
    elements: list[bytes] = []
    while len(binary):
        if len(binary) < LENGTH_BYTES:
            raise InvalidParameterError(f"input {name!r} ends within an element's length; send it whole")
        size = int.from_bytes(binary[:LENGTH_BYTES], "little")
        binary = binary[LENGTH_BYTES:]
        if size > len(binary):
            raise InvalidParameterError(
                f"input {name!r}: an element declares {size} bytes, but only {len(binary)} are left; send it whole"
            )
        if len(elements) == max_elements:
            raise InvalidParameterError(f"input {name!r} holds more than {max_elements} elements")
        elements.append(bytes(binary[:size]))
        binary = binary[size:]
    return elements


def _to_bytes(tensor: Tensor) -> bytes:
    if isinstance(tensor.values, np.ndarray):
        return tensor.values.astype("<f4").tobytes()
    return b"".join(len(element).to_bytes(LENGTH_BYTES, "little") + element for element in tensor.values)


def _to_json(tensor: Tensor) -> Any:
    if isinstance(tensor.values, np.ndarray):
        return np.ascontiguousarray(tensor.values, np.float32).ravel()
    return [element.decode() for element in tensor.values]
