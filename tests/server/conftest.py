"""Fixtures of the server's tests."""

from collections.abc import AsyncIterator

import httpx
import pytest
import structlog

from server.service import Service
from tests.server.harness import running


@pytest.fixture(autouse=True, scope="session")
def plain_logs() -> None:
    """Tracebacks without rich's frames and local variables, which take seconds to draw."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    )


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server() -> AsyncIterator[tuple[httpx.AsyncClient, Service]]:
    async with running() as pair:
        yield pair


@pytest.fixture
def client(server: tuple[httpx.AsyncClient, Service]) -> httpx.AsyncClient:
    return server[0]


@pytest.fixture
def service(server: tuple[httpx.AsyncClient, Service]) -> Service:
    return server[1]
