"""What the server's tests share: clips made in code, and an app that runs in-process on the fake runtime."""

import asyncio
import io
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import soundfile
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from server.app import create_app
from server.http_reading import HttpReader
from server.runtimes.fake import FakeRuntime
from server.service import Service
from server.settings import Settings

RATE = 16_000


def sine(seconds: float, frequency_hz: float = 440, rate: int = RATE) -> np.ndarray:
    """A sine of half scale, float32 (samples,)."""
    return (0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encode(waveform: np.ndarray, rate: int = RATE, container: str = "WAV") -> bytes:
    """The waveform as an audio file."""
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format=container)
    return file.getvalue()


def wav_header(data_bytes: int, channels: int = 1, rate: int = RATE, declared_bytes: int | None = None) -> bytes:
    """The 44 bytes before 16-bit samples, true or not."""
    declared = data_bytes if declared_bytes is None else declared_bytes
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2 & 0xFFFFFFFF, channels * 2 & 0xFFFF, 16)
    size = min(36 + declared, 0xFFFFFFFF)
    return (
        b"RIFF"
        + struct.pack("<I", size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", declared)
    )


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    """A client of a ready app on the fake runtime, and the app's inside."""
    app = make_app(**settings)
    async with started(app) as client:
        yield client, app.state.service


@asynccontextmanager
async def listening(**settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    """As `running`, over a socket, so that requests come through the HTTP protocol and its door."""
    app, state = make_app(**settings), ServerState()
    config = uvicorn.Config(app, log_config=None)
    config.load()
    async with app.router.lifespan_context(app) as app_state:
        await app.state.service.wait_until_loaded()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: HttpReader(config, state, dict(app_state or {})), "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
            yield client, app.state.service
        server.close()
        await server.wait_closed()


def make_app(**settings: Any) -> FastAPI:
    """An app on the fake runtime."""
    defaults = {
        "runtime": "fake",
        "models": ["fake", "other"],
        "decode_threads": 2,
        "drain_seconds": 5,
        "max_batch_audio_seconds": 40,
    }
    return create_app(Settings(**{**defaults, **settings}))


@asynccontextmanager
async def started(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app whose models are loaded; afterwards the app is stopped."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://hark") as client,
    ):
        await app.state.service.wait_until_loaded()
        yield client


def fake_runtime(service: Service, model: str = "fake") -> FakeRuntime:
    """The runtime behind a model, for telling it to fail or dawdle."""
    runtime = service.models[model].lane.runtime
    assert isinstance(runtime, FakeRuntime)
    return runtime


def check_error(response: httpx.Response, status: int, error_type: str) -> str:
    """Checks the one error body and returns its sentence."""
    body = response.json()
    assert response.status_code == status, body
    assert body["error_type"] == error_type, body
    assert body["request_id"] == response.headers["X-Request-ID"]
    assert set(body) <= {"error", "error_type", "request_id", "retry_after_seconds"}
    assert isinstance(body["error"], str)
    assert body["error"]
    assert ("retry_after_seconds" in body) == ("Retry-After" in response.headers)
    if "Retry-After" in response.headers:
        assert body["retry_after_seconds"] == int(response.headers["Retry-After"]) >= 1
    return body["error"]
