"""What goes over HTTP: parameters in, answers out; the answer models document, and are not run on every answer."""

from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from model.audio import Channels
from model.decoding.errors import MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ
from model.windows import LEAST_SECONDS
from server.fair_queue import Priority

OutputFormat = Literal["json", "jsonl", "csv", "audacity", "webvtt", "raven"]


class JsonAnswer(Response):
    """JSON by orjson, which also writes dataclasses and numpy numbers."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)


class WindowQuery(BaseModel):
    """What to read of a sound; unknown parameters are refused rather than ignored."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str | None = Field(default=None, description="Which model tags; by default the server's default model.")
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


class TagQuery(WindowQuery):
    """Parameters of tagging, in the query or as form fields."""

    channels: Channels = Field(
        default="mixed", description="Tag the mean of the channels, or every channel by itself (split)."
    )
    format: OutputFormat = Field(default="json", description="Shape of the answer.")
    priority: Priority = Field(
        default="interactive", description="A batch request gives way to interactive ones while the device is busy."
    )
    timeout_seconds: float | None = Field(
        default=None, gt=0, description="Deadline, counted from the end of the upload; a server may have a default."
    )


class StreamStart(WindowQuery):
    """The first message of a live stream: what the binary messages after it hold, and what to read of them."""

    model_config = ConfigDict(strict=True)  # JSON has types of its own

    sample_rate: int = Field(
        ge=MIN_SAMPLE_RATE_HZ, le=MAX_SAMPLE_RATE_HZ, description="Of the sound that will come, in Hz."
    )
    encoding: Literal["f32le", "s16le"] = Field(
        description="Mono samples: 32-bit floats in [-1, 1], or 16-bit integers; little-endian."
    )
    api_key: str | None = Field(
        default=None, description="Where keys are set and no header can be: browsers send none with a WebSocket."
    )


class EmbedQuery(BaseModel):
    """Parameters of embedding, in the query or as form fields."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str | None = Field(default=None, description="Which model embeds; by default the server's default model.")
    window_seconds: float | None = Field(
        default=None, ge=LEAST_SECONDS, description="Length of a window, at most the model's own, which is the default."
    )
    hop_seconds: float | None = Field(
        default=None, ge=LEAST_SECONDS, description="Distance between window starts, at most the window's length."
    )
    format: Literal["json", "npy"] | None = Field(
        default=None,
        description="JSON, or the windows' embeddings alone as a float32 .npy; by default what Accept asks for.",
    )
    priority: Priority = Field(
        default="interactive", description="A batch request gives way to interactive ones while the device is busy."
    )
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


CHANNEL = "Counts from 0; only where channels=split was asked for."


class WindowAnswer(BaseModel):
    """One window's top labels."""

    channel: int | None = Field(default=None, description=CHANNEL)
    start_seconds: float
    end_seconds: float
    labels: list[ScoredLabelAnswer]


class ChannelAnswer(BaseModel):
    """One channel's top labels."""

    channel: int = Field(description="Counts from 0.")
    labels: list[ScoredLabelAnswer]


class EventAnswer(BaseModel):
    """One sound's beginning and end, with its highest score."""

    channel: int | None = Field(default=None, description=CHANNEL)
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
    channels: list[ChannelAnswer] | None = Field(default=None, description="Only where channels=split was asked for.")
    windows: list[WindowAnswer]
    events: list[EventAnswer]
    timing: TimingAnswer
    provenance: ProvenanceAnswer
    request_id: str


class StreamMessage(BaseModel):
    """One message of a streamed answer: a window, then the whole answer; or an error, after which nothing comes."""

    model_config = ConfigDict(extra="allow")

    type: Literal["window", "summary", "error"] = Field(
        description="A window has `progress` beside its own fields; a summary those of the plain answer; an error those"
        " of the error body."
    )
    progress: dict[str, float | None] | None = Field(
        default=None, description="`heard_seconds`, and `duration_seconds` where the sound's header declares it."
    )


class EmbeddingAnswer(BaseModel):
    """One window's embedding: what the network hands to its head."""

    start_seconds: float
    end_seconds: float
    embedding: list[float]


class EmbedAnswer(BaseModel):
    """A sound's embeddings, all of one width."""

    model: str
    duration_seconds: float
    sample_rate: int
    embedding: list[float] = Field(description="The whole sound's: the mean of its windows'.")
    embeddings: list[EmbeddingAnswer]
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
    threshold: float = Field(description="Score from which it is heard: events begin there.")


class LabelsAnswer(BaseModel):
    """A model's classes in the order of its logits."""

    model: str
    labels: list[LabelAnswer]


class ModelAnswer(BaseModel):
    """One model as it is served."""

    name: str
    state: Literal["ready", "replacing"] = Field(description="A model that is being replaced answers until then.")
    default: bool
    traffic_share: float | None = Field(
        description="Its share of the requests that name no model, where they are split."
    )
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


class ModelChange(BaseModel):
    """A model on its way in or out."""

    name: str
    state: Literal["loading", "failed", "retiring"] = Field(
        description="A retiring model answers what it has accepted, then its memory is given back."
    )
    error: str = Field(description="Why a model could not be loaded; otherwise empty.")


class ModelsAnswer(BaseModel):
    """All models, the default first."""

    models: list[ModelAnswer]
    changes: list[ModelChange] = Field(description="What is loading, what failed to load, what is retiring.")


class RepositoryRequest(BaseModel):
    """What Triton's clients send to load a model."""

    model_config = ConfigDict(extra="forbid")

    parameters: dict[str, Any] | None = None


class ModelRequest(BaseModel):
    """What shall be served under a name."""

    model_config = ConfigDict(extra="forbid")

    source: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="A bundled or pulled model's name, or a checkpoint folder below the server's model root;"
        " without it, the model must be served already.",
    )
    make_default: bool = Field(default=False, description="Answer requests that name no model with this one.")


class QualityAnswer(BaseModel):
    """How well a taught class is told apart, judged on clips that were left out of teaching one by one."""

    told_apart: bool
    confused_with: str | None = Field(description="The negatives that score as high as the class, where it has such.")
    average_precision: float
    threshold: float = Field(description="Where its events begin; chosen for the best balance of the next two.")
    recall: float = Field(description="Share of its clips that score at least the threshold.")
    precision: float = Field(description="Share of its clips among all that score at least the threshold.")
    clips: int
    negatives: int


class OwnClassAnswer(BaseModel):
    """One label that users have taught."""

    name: str
    mid: str = Field(description="Stands in answers beside the name: /own/ and the name.")
    model: str
    version: int
    created: str = Field(description="When this version was taught, in ISO 8601.")
    message: str = Field(description="The quality in one sentence.")
    quality: QualityAnswer


class OwnClassesAnswer(BaseModel):
    """A model's taught labels, by name."""

    model: str
    classes: list[OwnClassAnswer]
