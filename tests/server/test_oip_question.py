"""What an inference request asks: every wrong form is named."""

from typing import Any

import numpy as np
import pytest
import soundfile

from server.oip_question import WantedOutput, read_question
from server.oip_tensors import InferRequest, OutputHeader, Tensor
from server.parameters import InvalidParameterError

ROW = np.array([0, 0.5, -0.25], np.float32)
WAVEFORM = Tensor("waveform", "FP32", (1, 3), ROW)
FILES = Tensor("audio", "BYTES", (2,), [b"one", b"two"], {"binary_data_size": 14})
RATE = {"sampling_rate": 8000}


def request(*inputs: Tensor, outputs: tuple[OutputHeader, ...] = (), **parameters: Any) -> InferRequest:
    return InferRequest("", parameters, inputs, outputs)


def test_waveforms_become_files_with_their_very_samples() -> None:
    [sound] = read_question(request(WAVEFORM, **RATE), 4).sounds
    samples, rate = soundfile.read(sound.file, dtype="float32")
    assert rate == 8000
    assert np.array_equal(samples, ROW)


def test_the_rate_may_stand_with_the_tensor() -> None:
    [sound] = read_question(request(Tensor("waveform", "FP32", (1, 3), ROW, {"sampling_rate": 44100})), 4).sounds
    assert soundfile.info(sound.file).samplerate == 44100


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_files_in_base64_and_in_bytes(shape: tuple[int, ...]) -> None:
    for values, parameters in (([b"b25l", b"dHdv"], {"content_type": "base64"}), ([b"one", b"two"], FILES.parameters)):
        sounds = read_question(request(Tensor("audio", "BYTES", shape, values, parameters)), 4).sounds
        assert [sound.file.read() for sound in sounds] == [b"one", b"two"]


def test_parameters_and_outputs() -> None:
    outputs = (OutputHeader(name="scores", parameters={"classification": 3}), OutputHeader(name="embeddings"))
    question = read_question(
        request(FILES, outputs=outputs, timeout=1_500_000, priority=2, binary_data_output=True, window_seconds=1), 4
    )
    assert question.timeout_seconds == 1.5
    assert question.priority == "batch"
    assert question.window_seconds == 1
    assert question.outputs == (WantedOutput("scores", True, 3), WantedOutput("embeddings", True))


def test_the_defaults_and_what_clients_send_to_every_server() -> None:
    question = read_question(request(FILES, headers={}, triton_enable_empty_final_response=False, sequence_id=0), 4)
    assert (question.timeout_seconds, question.priority, question.id) == (None, "interactive", "")
    assert question.outputs == (WantedOutput("scores", False), WantedOutput("labels", False))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (request(), "either the input 'audio' or the input 'waveform'"),
        (request(FILES, WAVEFORM, **RATE), "not 'audio', 'waveform'"),
        (request(FILES, FILES), "not 'audio', 'audio'"),
        (request(Tensor("sound", "BYTES", (1,), [b"x"])), "not 'sound'"),
        (request(WAVEFORM), "needs the request parameter 'sampling_rate'"),
        (request(WAVEFORM, sampling_rate=1), "greater than or equal to 1000"),
        (request(WAVEFORM, sampling_rate=10**7), "less than or equal to 768000"),
        (request(WAVEFORM, sampling_rate=True), "sampling_rate"),
        (request(WAVEFORM, sampling_rate="fast"), "sampling_rate"),
        (request(WAVEFORM, **RATE, sample_rate=1), "there is no parameter 'sample_rate'"),
        (request(WAVEFORM, **RATE, timeout=-1), "timeout"),
        (request(WAVEFORM, **RATE, sequence_id=4), "sequence_id"),
        (request(WAVEFORM, **RATE, window_seconds=float("nan")), "window_seconds"),
        (request(Tensor("waveform", "FP32", (3,), ROW), **RATE), r"the shape \[n, samples\]"),
        (request(Tensor("waveform", "FP32", (1, 0), ROW[:0]), **RATE), r"not \[1, 0\]"),
        (request(Tensor("waveform", "FP32", (0, 3), ROW[:0]), **RATE), r"not \[0, 3\]"),
        (request(Tensor("waveform", "FP32", (5, 1), np.zeros(5, np.float32)), **RATE), "holds 5 sounds, at most 4"),
        (request(Tensor("waveform", "FP32", (1, 1), np.array([np.nan], np.float32)), **RATE), "not finite"),
        (request(Tensor("waveform", "BYTES", (1, 1), [b"x"]), **RATE), "must be FP32, not BYTES"),
        (request(Tensor("audio", "FP32", (1,), ROW[:1])), "must be BYTES, not FP32"),
        (request(Tensor("audio", "BYTES", (0,), [])), r"not \[0\]"),
        (request(Tensor("audio", "BYTES", (1, 2), [b"YQ==", b"YQ=="])), r"not \[1, 2\]"),
        (request(Tensor("audio", "BYTES", (1,), ["é".encode()])), "in base64"),
        (request(Tensor("audio", "BYTES", (2,), [b"YQ==", b""])), "element 1 of input 'audio' is empty"),
        (request(Tensor("audio", "BYTES", (1,), [b"x"], {"content_type": "mp3"})), "content_type"),
        (
            request(Tensor("audio", "BYTES", (1,), [b"x"], {"content_type": "base64", "binary_data_size": 5})),
            "it is not base64",
        ),
        (request(Tensor("audio", "BYTES", (1,), [b"x"], {"shared_memory_region": "r"})), "'shared_memory_region'"),
        (request(FILES, outputs=(OutputHeader(name="logits"),)), "there is no output 'logits'"),
        (request(FILES, outputs=(OutputHeader(name="scores"),) * 2), "asked for twice"),
        (
            request(FILES, outputs=(OutputHeader(name="labels", parameters={"classification": 1}),)),
            "for the output 'scores' only",
        ),
        (request(FILES, outputs=(OutputHeader(name="scores", parameters={"classification": -1}),)), "classification"),
        (request(FILES, outputs=(OutputHeader(name="scores", parameters={"top": 1}),)), "there is no parameter 'top'"),
    ],
)
def test_wrong_questions(wrong: InferRequest, named: str) -> None:
    with pytest.raises(InvalidParameterError, match=named):
        read_question(wrong, 4)
