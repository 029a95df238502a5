"""The server's settings, read once: from arguments, HARK_* environment variables, a TOML file, then the defaults."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from server.settings_rules import check_variables, contradictions, read_settings_file

MEBIBYTE = 2**20


def _split(value: object) -> object:
    """Reads "a, b" as ["a", "b"], the form that environment variables use."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _split_shares(value: object) -> object:
    """Reads "a=90,b=10" as {"a": "90", "b": "10"}, whose numbers are checked next."""
    if not isinstance(value, str):
        return value
    pairs = [part.rpartition("=") for part in value.split(",") if part.strip()]
    names = [name.strip() for name, _, _ in pairs]
    if not all(names) or len(set(names)) < len(names):
        raise ValueError("give each model once, as in a=90,b=10")
    return dict(zip(names, (share.strip() for _, _, share in pairs), strict=True))


Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Every setting of `hark serve`; lists are written with commas in the environment."""

    model_config = SettingsConfigDict(env_prefix="HARK_", extra="forbid", frozen=True, allow_inf_nan=False)

    config: Path | None = Field(
        default=None, description="TOML file of settings; the environment and options win over it."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 is every interface.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 lets the system choose one.")
    models: Annotated[list[str], NoDecode, BeforeValidator(_split)] = Field(
        default=["aum-tiny"],
        min_length=1,
        description="Models to serve, bundled names or checkpoint folders; the first is the default.",
    )
    default_model: str | None = Field(
        default=None, description="Model that answers where a request names none; unset, it is the first of the models."
    )
    traffic_split: Annotated[dict[str, Share], NoDecode, BeforeValidator(_split_shares)] = Field(
        default={},
        description="Which models share the requests that name none, and how, as in a=90,b=10.",
    )
    model_root: Path | None = Field(
        default=None,
        description="Folder below which checkpoints may be loaded while serving; unset, only models by their name.",
    )
    classes_folder: Path | None = Field(
        default=None, description="Folder of the classes that users teach; unset, it is classes/ in HARK_CACHE."
    )
    max_own_classes: int = Field(default=100, ge=1, description="Most classes that users may teach one model.")
    runtime: Literal["auto", "torch", "onnx", "onnx-tensorrt", "openvino", "tensorrt", "fake"] = Field(
        default="auto",
        description="What executes a batch; auto is the fastest one here, fake answers made-up scores for tests.",
    )
    runtime_folder: Path | None = Field(
        default=None,
        description="Folder of exports and measurements of runtimes; unset, it is runtimes/ in HARK_CACHE.",
    )
    runtime_measure_seconds: float = Field(
        default=180, ge=0, description="How long a start may measure runtimes not measured before, in seconds."
    )
    fake_window_seconds: float = Field(
        default=0, ge=0, description="How long the fake runtime takes for each window, in seconds."
    )
    device: str = Field(
        default="auto", description="Device that runs models: auto, cpu, cuda, cuda:1, or several as in cuda:0,cuda:1."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        default="auto",
        description="Arithmetic of the network; auto is the runtime's fastest safe one, and float32 for torch.",
    )
    separate_process: bool | None = Field(
        default=None,
        description="Whether torch batches side by side run in a process of their own; unset, under `hark serve`.",
    )
    cpu_threads: int = Field(default=0, ge=0, description="Threads that batches on a CPU share; 0 takes one per core.")
    decode_threads: int = Field(
        default=min(8, os.cpu_count() or 1), ge=1, le=256, description="Threads that decode and resample uploads."
    )

    max_upload_bytes: int = Field(
        default=2048 * MEBIBYTE, ge=1, description="Largest request body in bytes; a larger one is refused."
    )
    max_json_bytes: int = Field(
        default=64 * MEBIBYTE,
        ge=1,
        description="Largest JSON body in bytes, because base64 inside JSON is held in memory.",
    )
    spool_memory_bytes: int = Field(
        default=MEBIBYTE, ge=0, description="Upload bytes kept in memory before the rest goes to a temporary file."
    )
    upload_idle_seconds: float = Field(
        default=60, gt=0, description="How long an upload may pause before it is given up, in seconds."
    )
    max_audio_seconds: float = Field(
        default=12 * 3600,
        gt=0,
        description="Longest sound of one request in seconds; a longer one is refused, never cut.",
    )
    max_request_windows: int = Field(
        default=50_000, ge=1, description="Most windows of one request; a small hop over a long sound reaches it first."
    )

    max_channels: int = Field(
        default=8, ge=1, le=255, description="Most channels of one sound that are tagged one by one (channels=split)."
    )

    max_requests: int = Field(default=256, ge=1, description="Most requests tagged at once; further ones are refused.")
    max_queue_audio_seconds: float = Field(
        default=1200,
        gt=0,
        description="Most audio waiting for the device in seconds; new requests beyond it are refused.",
    )
    max_batch_audio_seconds: float | None = Field(
        default=None,
        gt=0,
        description="Most audio in one batch in seconds, of which a CPU uses more than 10 only for a crowd; by default"
        " 20 on a CPU and 640 on a GPU.",
    )
    max_request_windows_in_flight: int = Field(
        default=16, ge=1, description="Most windows that one request has decoded but not yet answered."
    )
    timeout_seconds: float | None = Field(
        default=None, gt=0, description="Default deadline of a request in seconds, counted from the end of its upload."
    )
    max_request_sounds: int = Field(
        default=64, ge=1, le=4096, description="Most sounds in one request of the Open Inference Protocol."
    )
    quota_requests_per_minute: float | None = Field(
        default=None, gt=0, description="Requests that one caller may send in a minute; unset, there is no such quota."
    )
    quota_audio_seconds_per_minute: float | None = Field(
        default=None,
        gt=0,
        description="Audio in seconds that one caller may have tagged in a minute; unset, there is no such quota.",
    )
    stream_idle_seconds: float = Field(
        default=60,
        gt=0,
        description="How long a stream's sender may send nothing, or its reader take nothing, in seconds.",
    )
    overload_status: Literal[503, 429] = Field(
        default=503, description="Status of an answer refused because the server is full; some fleets expect 429."
    )
    drain_seconds: float = Field(
        default=30, ge=0, description="How long accepted requests may take to finish after SIGTERM, in seconds."
    )

    api_keys: Annotated[list[SecretStr], NoDecode, BeforeValidator(_split)] = Field(
        default=[],
        description="Keys of which callers must send one as bearer token or X-API-Key; without keys all may call.",
    )
    admin_keys: Annotated[list[SecretStr], NoDecode, BeforeValidator(_split)] = Field(
        default=[],
        description="Keys that may also change models and taught classes; without them nobody changes models, and all"
        " callers may teach classes.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log line shown."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="Log lines for people or for machines; auto writes for people on a terminal."
    )

    otlp_endpoint: str | None = Field(
        default=None,
        description="OTLP/HTTP endpoint that gets spans, as in http://collector:4318; unset, none are made.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, which wins over the settings file that either of them names."""
        path = init_settings().get("config") or env_settings().get("config")
        values = read_settings_file(Path(path).expanduser(), cls.model_fields) if path else {}
        return init_settings, env_settings, InitSettingsSource(settings_cls, values)

    @model_validator(mode="before")
    @classmethod
    def _variables_are_known(cls, values: object) -> object:
        check_variables(os.environ, cls.model_fields)
        return values

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if found := list(contradictions(self)):
            raise ValueError("; ".join(found))
        return self

    def batch_audio_seconds(self, device: str) -> float:
        """The batch limit, or the device's default: a GPU gains from large batches, a CPU little.

        Measured with aum-tiny, one batch on each of two cores: a window costs 14.4 ms alone, 11.4 in twos, 10.6 in
        fours and 10.2 in eights. Answers come a batch at a time, and after eights refusals waited too long for theirs.
        """
        return self.max_batch_audio_seconds or (640.0 if device.startswith("cuda") else 20.0)
