"""Who is being answered, and what they hold."""

import asyncio

import pytest

from server.in_flight import InFlight, Stay, current_stay

pytestmark = pytest.mark.anyio


async def test_waiting_is_for_those_present_and_chosen() -> None:
    in_flight, leave = InFlight(), {name: asyncio.Event() for name in "abc"}
    stays: dict[str, Stay] = {}

    async def visit(name: str) -> None:
        with in_flight.request():
            stay = current_stay.get()
            assert stay is not None
            stays[name] = stay
            await leave[name].wait()

    visits = [asyncio.create_task(visit(name)) for name in "ab"]
    await asyncio.sleep(0)
    waiting = asyncio.create_task(in_flight.wait_for(lambda stay: stay is stays["a"]))
    await asyncio.sleep(0)
    visits.append(asyncio.create_task(visit("c")))
    await asyncio.sleep(0)
    assert not waiting.done()
    leave["a"].set()
    await asyncio.wait_for(waiting, 5)
    assert not await in_flight.wait_until_idle(0)
    leave["b"].set()
    leave["c"].set()
    assert await in_flight.wait_until_idle(5)
    assert current_stay.get() is None
    await asyncio.gather(*visits)


async def test_who_is_cancelled_is_counted_and_gone() -> None:
    in_flight = InFlight()

    async def visit() -> None:
        with in_flight.request():
            await asyncio.Event().wait()

    task = asyncio.create_task(visit())
    await asyncio.sleep(0)
    task.cancel()
    assert await in_flight.wait_until_idle(5)
    assert in_flight.cut_off == 1
