"""The requests being answered right now: how many, which models they hold, and when they are done."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from server.served_models import ServedModel


@dataclass(eq=False)
class Stay:
    """One request's time here, and the models that it has met, by the name that it used."""

    models: dict[str | None, ServedModel] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def holds(self, model: ServedModel) -> bool:
        """Whether the request may still use this very model."""
        return any(met is model for met in self.models.values())


current_stay: ContextVar[Stay | None] = ContextVar("current_stay", default=None)
"""The request on whose behalf code runs; its tasks inherit it."""


class InFlight:
    """Each request enters and leaves; used on the event loop only."""

    def __init__(self) -> None:
        self._stays: set[Stay] = set()
        self.cut_off = 0  # requests cancelled before their answer

    @contextmanager
    def request(self) -> Iterator[None]:
        """One request's stay."""
        stay = Stay()
        self._stays.add(stay)
        token = current_stay.set(stay)
        try:
            yield
        except asyncio.CancelledError:
            self.cut_off += 1
            raise
        finally:
            current_stay.reset(token)
            self._stays.remove(stay)
            stay.done.set()

    async def wait_for(self, which: Callable[[Stay], bool]) -> None:
        """Returns when these of the requests that are in flight now have left, whoever came meanwhile."""
        for stay in [stay for stay in self._stays if which(stay)]:
            await stay.done.wait()

    async def wait_until_idle(self, seconds: float) -> bool:
        """Whether there was no request in flight within so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while self._stays:
                    await self.wait_for(lambda stay: True)
        except TimeoutError:
            return False
        return True
