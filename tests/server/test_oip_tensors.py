"""Bodies of the Open Inference Protocol: what is read, what is refused, and that a declared size never costs memory."""

import struct
import tracemalloc
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.oip_tensors import Tensor, parse_request, render_answer
from server.parameters import InvalidParameterError

AUDIO = {"name": "audio", "shape": [2], "datatype": "BYTES"}
WAVEFORM = {"name": "waveform", "shape": [2, 3], "datatype": "FP32"}
FLOATS = np.arange(6, dtype="<f4")
ELEMENTS = b"\x01\x00\x00\x00a\x02\x00\x00\x00bc"


def with_bytes(tensor: dict[str, Any], data: bytes, size: object = None) -> tuple[bytes, str]:
    """A binary body of one input, and its header's length."""
    parameters = {"binary_data_size": len(data) if size is None else size}
    text = orjson.dumps({"inputs": [{**tensor, "parameters": parameters}]})
    return text + data, str(len(text))


def with_data(tensor: dict[str, Any], data: object) -> bytes:
    return orjson.dumps({"inputs": [{**tensor, "data": data}]})


@pytest.mark.parametrize("data", [[0, 1, 2, 3, 4, 5], [0.0, 1.0, 2, 3, 4, 5], [[0, 1, 2], [3, 4, 5]]])
def test_floats_in_json(data: list[Any]) -> None:
    [tensor] = parse_request(with_data(WAVEFORM, data), None, 64).inputs
    assert np.array_equal(tensor.values, FLOATS)
    assert tensor.shape == (2, 3)


@pytest.mark.parametrize(("shape", "data"), [([2], ["a", "bc"]), ([2, 1], [["a"], ["bc"]]), ([2, 1], ["a", "bc"])])
def test_strings_in_json(shape: list[int], data: list[Any]) -> None:
    [tensor] = parse_request(with_data({**AUDIO, "shape": shape}, data), None, 64).inputs
    assert tensor.values == [b"a", b"bc"]


def test_bytes_behind_the_json() -> None:
    text = orjson.dumps(
        {
            "id": "x",
            "parameters": None,
            "inputs": [
                {**AUDIO, "parameters": {"binary_data_size": len(ELEMENTS)}},
                {**WAVEFORM, "parameters": {"binary_data_size": 24}},
            ],
            "outputs": None,
        }
    )
    request = parse_request(text + ELEMENTS + FLOATS.tobytes(), str(len(text)), 64)
    assert request.inputs[0].values == [b"a", b"bc"]
    assert np.array_equal(request.inputs[1].values, FLOATS)
    assert (request.id, request.parameters, request.outputs) == ("x", {}, ())


@pytest.mark.parametrize(
    ("tensor", "data", "named"),
    [
        (WAVEFORM, [0, 1, 2, 3, 4], "means 6 elements, but 5 came"),
        (WAVEFORM, [0, 1, 2, 3, 4, 5, 6], "means 6 elements, but 7 came"),
        (WAVEFORM, [[0, 1, 2], [3, 4]], "rows"),
        (WAVEFORM, [[0, 1], [2, 3], [4, 5]], "rows"),
        (WAVEFORM, [[0, 1, 2], 3], "rows"),
        (WAVEFORM, [[[0, 1, 2]], [[3, 4, 5]]], "rows"),
        (WAVEFORM, [[[0], [1], [2]], [[3], [4], [5]]], "numbers"),
        (WAVEFORM, ["0", "1", "2", "3", "4", "5"], "numbers"),
        (WAVEFORM, [True, 1, 2, 3, 4, 5], "numbers"),
        (WAVEFORM, [None, 1, 2, 3, 4, 5], "numbers"),
        (WAVEFORM, {}, "list"),
        (WAVEFORM, None, "either 'data' or"),
        ({**WAVEFORM, "shape": [2, -3]}, [], "greater than or equal to 0"),
        ({**WAVEFORM, "shape": [2, 3.5]}, [], "integer"),
        ({**WAVEFORM, "shape": [10**18, 10**18]}, [1], "but 1 came"),
        ({**WAVEFORM, "shape": [1] * 9}, [1], "at most 8"),
        ({**WAVEFORM, "datatype": "FP64"}, [0] * 6, "'FP64' is not read"),
        ({**WAVEFORM, "datatype": 7}, [0] * 6, "string"),
        (AUDIO, ["a"], "means 2 elements, but 1 came"),
        (AUDIO, ["a", 1], "must be strings"),
        (AUDIO, [["a"], ["b"]], "rows"),
        ({**AUDIO, "shape": [65]}, ["a"], "more than 64 elements"),
        ({**AUDIO, "shape": []}, [], "means 1 elements, but 0 came"),
        ({**AUDIO, "size": 3}, [], "there is no parameter 'inputs.0.size'"),
    ],
)
def test_wrong_json(tensor: dict[str, Any], data: object, named: str) -> None:
    with pytest.raises(InvalidParameterError, match=named):
        parse_request(with_data(tensor, data), None, 64)


@pytest.mark.parametrize(
    ("tensor", "data", "size", "named"),
    [
        (WAVEFORM, FLOATS.tobytes()[:-1], None, "no whole number of FP32"),
        (WAVEFORM, FLOATS.tobytes()[:-4], None, "means 6 elements, but 5 came"),
        (WAVEFORM, FLOATS.tobytes(), 20, "means 6 elements, but 5 came"),
        (WAVEFORM, FLOATS.tobytes(), 28, "declares 28 bytes, but only 24 are left"),
        (WAVEFORM, FLOATS.tobytes(), 2**62, "but only 24 are left"),
        (WAVEFORM, FLOATS.tobytes(), -1, "whole number"),
        (WAVEFORM, FLOATS.tobytes(), "24", "whole number"),
        (WAVEFORM, FLOATS.tobytes(), 24.0, "whole number"),
        (WAVEFORM, FLOATS.tobytes(), True, "whole number"),
        (AUDIO, ELEMENTS[:-1], None, "declares 2 bytes, but only 1 are left"),
        (AUDIO, ELEMENTS[:7], None, "ends within an element's length"),
        (AUDIO, ELEMENTS[:5], None, "means 2 elements, but 1 came"),
        (AUDIO, ELEMENTS * 2, None, "means 2 elements, but 4 came"),
        (AUDIO, struct.pack("<I", 0xFFFFFFFF) + b"a", None, "declares 4294967295 bytes, but only 1"),
        (AUDIO, bytes(4 * 65), None, "more than 64 elements"),
    ],
)
def test_wrong_bytes(tensor: dict[str, Any], data: bytes, size: object, named: str) -> None:
    body, length = with_bytes(tensor, data, size)
    with pytest.raises(InvalidParameterError, match=named):
        parse_request(body, length, 64)


def test_bytes_behind_the_last_tensor_are_not_passed_over() -> None:
    body, length = with_bytes(WAVEFORM, FLOATS.tobytes())
    with pytest.raises(InvalidParameterError, match="3 bytes follow the last tensor"):
        parse_request(body + b"abc", length, 64)


@pytest.mark.parametrize("length", ["0", "-1", "1e3", "", "x", "99999999999999999999", "²"])
def test_wrong_header_lengths(length: str) -> None:
    with pytest.raises(InvalidParameterError, match="Inference-Header-Content-Length"):
        parse_request(with_data(WAVEFORM, [0] * 6), length, 64)


def test_a_header_length_of_thousands_of_digits() -> None:
    """Python refuses to read a number of more than 4300 digits, and the caller was told of an internal error."""
    with pytest.raises(InvalidParameterError, match="Inference-Header-Content-Length"):
        parse_request(with_data(WAVEFORM, [0] * 6), "9" * 5000, 64)


def test_a_tensor_needs_its_values_once() -> None:
    body, length = with_bytes({**WAVEFORM, "data": [0] * 6}, FLOATS.tobytes())
    with pytest.raises(InvalidParameterError, match="and not both"):
        parse_request(body, length, 64)


@pytest.mark.parametrize("body", [b"", b"[]", b"3", b"{", b"{}", b'{"inputs": []}', b'{"inputs": [3]}', b"\xff"])
def test_what_is_no_request(body: bytes) -> None:
    with pytest.raises(InvalidParameterError):
        parse_request(body, None, 64)


def test_one_long_string_among_numbers_makes_no_room_for_others_of_its_length() -> None:
    """numpy gives every element the length of the longest: a body of 3 MB would have taken 4 TB."""
    data = ["x" * 1_000_000, *([0] * 1_000_000)]
    body = with_data({**WAVEFORM, "shape": [1, len(data)]}, data)
    tracemalloc.start()
    try:
        with pytest.raises(InvalidParameterError, match="numbers"):
            parse_request(body, None, 64)
        assert tracemalloc.get_traced_memory()[1] < 20 * len(body)
    finally:
        tracemalloc.stop()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 2**33), st.sampled_from(["FP32", "BYTES"]))
def test_no_bytes_break_it(data: bytes, cut: int, size: int, datatype: str) -> None:
    tensor = {"name": "t", "shape": [len(data) // 4], "datatype": datatype}
    for declared in (size, len(data)):
        body, length = with_bytes(tensor, data, declared)
        for sent in (body, body[: len(body) - cut]):
            try:
                request = parse_request(sent, length, 64)
            except InvalidParameterError:
                continue
            assert len(request.inputs[0].values) == len(data) // 4


def test_answers_are_read_back() -> None:
    outputs = [Tensor("scores", "FP32", (2, 3), FLOATS.reshape(2, 3)), Tensor("labels", "BYTES", (2,), [b"a", b"b,c"])]
    body, length = render_answer({"model_name": "m"}, outputs, [False, False])
    assert length is None
    answer = orjson.loads(body)
    assert [output["data"] for output in answer["outputs"]] == [[0, 1, 2, 3, 4, 5], ["a", "b,c"]]
    body, length = render_answer({}, outputs, [True, True])
    head = orjson.loads(body[:length])
    sizes = [output["parameters"]["binary_data_size"] for output in head["outputs"]]
    assert sizes == [24, 12]
    assert body[length:] == FLOATS.tobytes() + b"\x01\x00\x00\x00a\x03\x00\x00\x00b,c"
