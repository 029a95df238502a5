"""What an Open Inference Protocol request asks: which sounds, how to tag them, and which outputs to send.

inputs    `audio` BYTES [n] or [n, 1], each element a file; or `waveform` FP32 [n, samples] with `sampling_rate`
outputs   `scores` FP32 [n, C], `labels` and `mids` BYTES [C], `embeddings` FP32 [n, D]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
import soundfile
from pydantic import BaseModel, ConfigDict, Field

from model.decoding.errors import MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ
from model.windows import LEAST_SECONDS
from server.fair_queue import Priority
from server.json_body import decode_base64
from server.oip_tensors import InferRequest, OutputHeader, Tensor
from server.parameters import InvalidParameterError, parse_parameters
from server.uploads import Upload

OutputName = Literal["scores", "labels", "mids", "embeddings"]
OUTPUTS: tuple[OutputName, ...] = ("scores", "labels", "mids", "embeddings")
SENT_UNASKED: tuple[OutputName, ...] = ("scores", "labels")
FOR_OTHERS = ("headers", "content_type")  # what clients send to every server, without meaning for this one


class InferParameters(BaseModel):
    """The request's own parameters."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    sampling_rate: int | None = Field(
        default=None, ge=MIN_SAMPLE_RATE_HZ, le=MAX_SAMPLE_RATE_HZ, description="Of `waveform`, in Hz."
    )
    window_seconds: float | None = Field(default=None, ge=LEAST_SECONDS)
    hop_seconds: float | None = Field(default=None, ge=LEAST_SECONDS)
    timeout: int = Field(default=0, ge=0, description="Deadline in microseconds; 0 is none.")
    priority: int = Field(default=0, ge=0, description="1 is the highest; from 2 on others go first.")
    binary_data_output: bool = Field(default=False, description="Outputs as bytes behind the JSON.")
    sequence_id: Literal[0, ""] = Field(default=0, description="Sounds have no state from request to request.")
    sequence_start: bool = False
    sequence_end: bool = False


class AudioParameters(BaseModel):
    """Parameters of the input `audio`; in JSON its elements are base64."""

    model_config = ConfigDict(extra="forbid")

    binary_data_size: int | None = None
    content_type: Literal["base64"] | None = None


class WaveformParameters(BaseModel):
    """Parameters of the input `waveform`."""

    model_config = ConfigDict(extra="forbid")

    binary_data_size: int | None = None
    content_type: Literal["np"] | None = None
    sampling_rate: int | None = Field(default=None, ge=MIN_SAMPLE_RATE_HZ, le=MAX_SAMPLE_RATE_HZ)


class OutputParameters(BaseModel):
    """Parameters of an output that is asked for."""

    model_config = ConfigDict(extra="forbid")

    binary_data: bool | None = None
    classification: int = Field(default=0, ge=0, description="So many best classes, as 'score:index:label'.")


@dataclass(frozen=True)
class WantedOutput:
    """One output of the answer."""

    name: OutputName
    binary: bool
    classification: int = 0


@dataclass(frozen=True)
class Question:
    """Sounds as files, and what is asked of them; `timeout_seconds` is None where the server's own holds."""

    id: str
    sounds: tuple[Upload, ...]
    window_seconds: float | None
    hop_seconds: float | None
    timeout_seconds: float | None
    priority: Priority
    outputs: tuple[WantedOutput, ...]


def read_question(request: InferRequest, max_sounds: int) -> Question:
    """Checks everything but the sounds themselves.

    Raises: InvalidParameterError naming what is wrong.
    """
    given = {name: value for name, value in request.parameters.items() if not _is_for_others(name)}
    parameters = parse_parameters(InferParameters, given)
    outputs = _wanted(request.outputs, parameters.binary_data_output)
    return Question(
        id=request.id,
        sounds=_sounds(request.inputs, parameters.sampling_rate, max_sounds),
        window_seconds=parameters.window_seconds,
        hop_seconds=parameters.hop_seconds,
        timeout_seconds=parameters.timeout / 1e6 or None,
        priority="batch" if parameters.priority > 1 else "interactive",
        outputs=outputs,
    )


def _is_for_others(name: str) -> bool:
    return name in FOR_OTHERS or name.startswith("triton_")


def _wanted(asked: Sequence[OutputHeader], binary: bool) -> tuple[WantedOutput, ...]:
    if not asked:
        return tuple(WantedOutput(name, binary) for name in SENT_UNASKED)
    names = [output.name for output in asked]
    if len(set(names)) < len(names):
        raise InvalidParameterError("an output is asked for twice")
    return tuple(_wanted_output(output, binary) for output in asked)


def _wanted_output(asked: OutputHeader, binary: bool) -> WantedOutput:
    name = next((name for name in OUTPUTS if name == asked.name), None)
    if name is None:
        raise InvalidParameterError(f"there is no output {asked.name!r}; there are: {', '.join(OUTPUTS)}")
    parameters = parse_parameters(OutputParameters, asked.parameters)
    if parameters.classification and name != "scores":
        raise InvalidParameterError("classification is for the output 'scores' only")
    as_bytes = binary if parameters.binary_data is None else parameters.binary_data
    return WantedOutput(name, as_bytes, parameters.classification)


def _sounds(inputs: Sequence[Tensor], sampling_rate: int | None, max_sounds: int) -> tuple[Upload, ...]:
    if len(inputs) != 1 or inputs[0].name not in ("audio", "waveform"):
        given = ", ".join(repr(tensor.name) for tensor in inputs)
        raise InvalidParameterError(f"send either the input 'audio' or the input 'waveform', not {given}")
    tensor = inputs[0]
    files = _files(tensor) if tensor.name == "audio" else _waveform_files(tensor, sampling_rate, max_sounds)
    return tuple(Upload(BytesIO(file), len(file)) for file in files)


def _files(tensor: Tensor) -> list[bytes]:
    """The elements of `audio`: at most as many as `parse_request` let pass."""
    shape = list(tensor.shape)
    if tensor.datatype != "BYTES" or isinstance(tensor.values, np.ndarray):
        raise InvalidParameterError(f"input 'audio' must be BYTES, not {tensor.datatype}")
    if len(shape) not in (1, 2) or shape[1:] not in ([], [1]) or not tensor.values:
        raise InvalidParameterError(f"input 'audio' must have the shape [n], with n of 1 at least, not {shape}")
    parameters = parse_parameters(AudioParameters, tensor.parameters)
    if parameters.binary_data_size is None:
        files = [decode_base64(element, "each element of input 'audio'") for element in tensor.values]
    elif parameters.content_type is not None:
        raise InvalidParameterError("input 'audio' comes as bytes, so it is not base64; leave out its content_type")
    else:
        files = list(tensor.values)
    if empty := [index for index, file in enumerate(files) if not file]:
        raise InvalidParameterError(f"element {empty[0]} of input 'audio' is empty; send the bytes of an audio file")
    return files


def _waveform_files(tensor: Tensor, sampling_rate: int | None, max_sounds: int) -> list[bytes]:
    """Each row of `waveform` as a float WAV, so that it takes the way of every upload, resampling included."""
    shape = list(tensor.shape)
    if tensor.datatype != "FP32" or not isinstance(tensor.values, np.ndarray):
        raise InvalidParameterError(f"input 'waveform' must be FP32, not {tensor.datatype}")
    if len(shape) != 2 or not all(shape):
        raise InvalidParameterError(
            f"input 'waveform' must have the shape [n, samples], both of 1 at least, not {shape}"
        )
    if shape[0] > max_sounds:
        raise InvalidParameterError(f"input 'waveform' holds {shape[0]} sounds, at most {max_sounds} go in one request")
    own = parse_parameters(WaveformParameters, tensor.parameters).sampling_rate
    rate = own or sampling_rate
    if rate is None:
        raise InvalidParameterError("input 'waveform' needs the request parameter 'sampling_rate', in Hz")
    if not np.isfinite(tensor.values).all():
        raise InvalidParameterError("input 'waveform' holds values that are not finite numbers")
    return [_wav(row, rate) for row in tensor.values.reshape(shape)]


def _wav(waveform: np.ndarray, rate: int) -> bytes:
    file = BytesIO()
    soundfile.write(file, waveform, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def describe_tensors(classes: int) -> Mapping[str, list[dict[str, Any]]]:
    """The inputs and outputs as a model's metadata names them; -1 stands for any length."""
    return {
        "inputs": [
            {"name": "audio", "datatype": "BYTES", "shape": [-1]},
            {"name": "waveform", "datatype": "FP32", "shape": [-1, -1]},
        ],
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [-1, classes]},
            {"name": "labels", "datatype": "BYTES", "shape": [classes]},
            {"name": "mids", "datatype": "BYTES", "shape": [classes]},
            {"name": "embeddings", "datatype": "FP32", "shape": [-1, -1]},
        ],
    }
