"""What goes over HTTP: parameters in, answers out; the answer models document, and are not run on every answer."""

from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

LEAST_SECONDS = 0.01  # one STFT hop: anything finer sees the same frames
OutputFormat = Literal["json", "jsonl", "csv", "audacity", "webvtt", "raven"]


class JsonAnswer(Response):
    """JSON by orjson, which also writes dataclasses and numpy numbers."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


class TagQuery(BaseModel):
    """Parameters of tagging, in the query or as form fields; unknown ones are refused rather than ignored."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str | None = Field(default=None, description="Which model tags; by default the first one served.")
    top_k: int = Field(default=5, ge=1, description="How many labels to return; more than there are means all.")
    threshold: float = Field(default=0.0, ge=0, le=1, description="Least score of a label returned.")
    window_seconds: float | None = Field(
        default=None, ge=LEAST_SECONDS, description="Length of a window, at most the model's own, which is the default."
    )
    hop_seconds: float | None = Field(
        default=None, ge=LEAST_SECONDS, description="Distance between window starts, at most the window's length."
    )
    rollup: bool = Field(
        default=False, description="Lift scores to AudioSet's parents: a parent scores at least its best child."
    )
    format: OutputFormat = Field(default="json", description="Shape of the answer.")
    timeout_seconds: float | None = Field(
        default=None, gt=0, description="Deadline, counted from the end of the upload; a server may have a default."
    )


class HuggingFaceParameters(BaseModel):
    """Parameters of Hugging Face's audio-classification task."""

    model_config = ConfigDict(extra="forbid")

    top_k: int | None = Field(default=5, ge=1, description="How many labels to return; null means all.")
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = Field(
        default=None, description="How logits become scores; by default as the model was trained, sigmoid for tagging."
    )


class HuggingFaceRequest(BaseModel):
    """The task's JSON body: the sound in base64, and `HuggingFaceParameters`, checked together with the query's."""

    inputs: str = Field(description="The bytes of an audio file, in base64.")
    parameters: dict[str, Any] | None = None


class ScoredLabelAnswer(BaseModel):
    """A label and its score in [0, 1]."""

    mid: str = Field(description="AudioSet's machine id, or the name for labels of other sets.")
    label: str
    score: float


class WindowAnswer(BaseModel):
    """One window's top labels."""

    start_seconds: float
    end_seconds: float
    labels: list[ScoredLabelAnswer]


class EventAnswer(BaseModel):
    """One sound's beginning and end, with its highest score."""

    mid: str
    label: str
    start_seconds: float
    end_seconds: float
    score: float


class TimingAnswer(BaseModel):
    """Where the time went, in milliseconds."""

    decode_ms: float = Field(description="Decoding, resampling and cutting into windows.")
    queue_ms: float = Field(description="The longest that any of the windows waited for the device.")
    features_ms: float = Field(description="Log-mel of the batches that held the windows.")
    inference_ms: float = Field(description="The network on the batches that held the windows.")
    total_ms: float = Field(description="From the end of the upload to the answer.")


class ProvenanceAnswer(BaseModel):
    """What exactly produced the scores."""

    weights_sha256: str
    runtime: str
    precision: str
    device: str
    scan: str | None


class ClassifyAnswer(BaseModel):
    """What is in a sound."""

    model: str
    duration_seconds: float
    sample_rate: int
    labels: list[ScoredLabelAnswer] = Field(description="The clip's top labels: the highest score over its windows.")
    windows: list[WindowAnswer]
    events: list[EventAnswer]
    timing: TimingAnswer
    provenance: ProvenanceAnswer
    request_id: str


class HuggingFaceLabel(BaseModel):
    """One element of the task's answer, highest score first."""

    label: str
    score: float
    mid: str


class ErrorAnswer(BaseModel):
    """The one body of every error."""

    error: str = Field(description="One sentence; for a 4xx it says what to change.")
    error_type: str
    request_id: str
    retry_after_seconds: int | None = Field(default=None, description="Where asking again later makes sense.")


class LabelAnswer(BaseModel):
    """One class of a model."""

    index: int
    mid: str
    name: str
    parents: list[str] = Field(description="Machine ids of its direct parents in the ontology.")


class LabelsAnswer(BaseModel):
    """A model's classes in the order of its logits."""

    model: str
    labels: list[LabelAnswer]


class ModelAnswer(BaseModel):
    """One model as it is served."""

    name: str
    default: bool
    backbone: str
    labels: int
    sample_rate: int
    window_seconds: float
    hop_seconds: float
    activation: str
    runtime: str
    precision: str
    device: str
    scan: str | None
    weights_sha256: str
    golden_max_abs_diff: float
    card: str = Field(description="The model card, in Markdown.")


class ModelsAnswer(BaseModel):
    """All models, the default first."""

    models: list[ModelAnswer]
