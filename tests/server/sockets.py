"""A WebSocket client of an app in this process: what goes in, and what came out."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI

START = {"sample_rate": 16_000, "encoding": "f32le"}


class Socket:
    """One connection to `/stream`; messages are read one by one, and `closed` is the close code."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.outgoing: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.closed: int | None = None
        self.reason = ""
        self.stuck = asyncio.Event()  # cleared: the client takes nothing
        self.stuck.set()

    async def send(self, message: str | bytes | dict[str, Any] | np.ndarray) -> None:
        """Sends text, bytes, JSON, or a waveform as its bytes."""
        if isinstance(message, dict):
            message = json.dumps(message)
        if isinstance(message, np.ndarray):
            message = message.tobytes()
        kind = "text" if isinstance(message, str) else "bytes"
        await self.incoming.put({"type": "websocket.receive", kind: message})

    async def leave(self) -> None:
        """Closes the connection from the client's side."""
        await self.incoming.put({"type": "websocket.disconnect", "code": 1001})

    async def read(self) -> dict[str, Any] | None:
        """The next message; None when the server has closed."""
        async with asyncio.timeout(10):
            message = await self.outgoing.get()
        if message["type"] == "websocket.close":
            self.closed, self.reason = message["code"], message.get("reason") or ""
            return None
        return dict(json.loads(message["text"]))

    async def rest(self) -> list[dict[str, Any]]:
        """Every message up to the close."""
        messages = []
        while (message := await self.read()) is not None:
            messages.append(message)
        return messages

    async def until(self, kind: str) -> dict[str, Any]:
        """The next message of this type."""
        while (message := await self.read()) is not None:
            if message["type"] == kind:
                return message
        raise AssertionError(f"the server closed before any {kind}")

    async def _send(self, message: dict[str, Any]) -> None:
        await self.stuck.wait()
        if message["type"] != "websocket.accept":
            await self.outgoing.put(message)


@asynccontextmanager
async def connected(app: FastAPI, headers: dict[str, str] | None = None) -> AsyncIterator[Socket]:
    """A connection whose handshake is done; what the app still does for it is awaited."""
    socket = Socket()
    socket.incoming.put_nowait({"type": "websocket.connect"})
    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "websocket", "path": "/stream", "headers": raw, "query_string": b"", "subprotocols": []}
    extra = {"asgi": {"version": "3.0"}, "app": app, "client": ("testclient", 1)}
    running = asyncio.create_task(app({**scope, **extra}, socket.incoming.get, socket._send))  # type: ignore[arg-type]
    try:
        yield socket
    finally:
        await socket.leave()
        async with asyncio.timeout(10):
            await running
