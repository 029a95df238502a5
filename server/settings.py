"""The server's settings, read once: from arguments, from HARK_* environment variables, then the defaults."""

import os
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MEBIBYTE = 2**20
VARIABLES_READ_ELSEWHERE = {"HARK_CACHE"}  # model/registry.py


def _split(value: object) -> object:
    """Reads "a, b" as ["a", "b"], the form that environment variables use."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Settings(BaseSettings):
    """Every setting of `hark serve`; lists are written with commas in the environment."""

    model_config = SettingsConfigDict(env_prefix="HARK_", extra="forbid", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 is every interface.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 lets the system choose one.")
    models: Annotated[list[str], NoDecode, BeforeValidator(_split)] = Field(
        default=["aum-tiny"],
        min_length=1,
        description="Models to serve, bundled names or checkpoint folders; the first is the default.",
    )
    runtime: Literal["torch", "fake"] = Field(
        default="torch", description="What executes a batch; fake answers made-up scores for tests and load tests."
    )
    fake_window_seconds: float = Field(
        default=0, ge=0, description="How long the fake runtime takes for each window, in seconds."
    )
    device: str = Field(default="auto", description="Device of the torch runtime: auto, cpu, cuda or cuda:1 and so on.")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="Arithmetic of the network; a precision that fails the golden check falls back to float32.",
    )
    cpu_threads: int = Field(default=0, ge=0, description="Threads of one batch on a CPU; 0 takes one per core.")
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

    max_requests: int = Field(default=256, ge=1, description="Most requests tagged at once; further ones are refused.")
    max_queue_audio_seconds: float = Field(
        default=1200,
        gt=0,
        description="Most audio waiting for the device in seconds; new requests beyond it are refused.",
    )
    max_batch_audio_seconds: float | None = Field(
        default=None, gt=0, description="Most audio in one batch in seconds; by default 10 on a CPU and 640 on a GPU."
    )
    max_request_windows_in_flight: int = Field(
        default=16, ge=1, description="Most windows that one request has decoded but not yet answered."
    )
    timeout_seconds: float | None = Field(
        default=None, gt=0, description="Default deadline of a request in seconds, counted from the end of its upload."
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
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe log line shown."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="Log lines for people or for machines; auto writes for people on a terminal."
    )

    @model_validator(mode="before")
    @classmethod
    def _variables_are_known(cls, values: object) -> object:
        known = {f"HARK_{name}".upper() for name in cls.model_fields} | VARIABLES_READ_ELSEWHERE
        names = sorted(name for name in os.environ if name.upper().startswith("HARK_") and name.upper() not in known)
        if names:
            raise ValueError(f"there is no setting {', '.join(names)}; docs/configuration.md lists all")
        return values

    @model_validator(mode="after")
    def _limits_agree(self) -> Self:
        if self.max_json_bytes > self.max_upload_bytes and "max_json_bytes" in self.model_fields_set:
            raise ValueError("max_json_bytes must not exceed max_upload_bytes")
        if self.max_batch_audio_seconds is not None and self.max_batch_audio_seconds > self.max_queue_audio_seconds:
            raise ValueError("max_batch_audio_seconds must not exceed max_queue_audio_seconds")
        return self

    def batch_audio_seconds(self, device: str) -> float:
        """The batch limit, or the device's default: a GPU gains from large batches, a CPU only makes others wait.

        Measured with aum-tiny on two cores: a window costs 20 ms alone, 17 in twos, 15 in fours, and 18 in eights.
        """
        return self.max_batch_audio_seconds or (640.0 if device.startswith("cuda") else 10.0)
