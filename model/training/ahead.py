"""Work done ahead of its taker in named threads; decoding leaves Python's lock alone, so threads are enough."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Results in the order of the items, at most two per worker made before they are taken; 0 workers: none ahead.

    `items` is drawn in the caller's thread. An error of the function comes when its result is taken.
    """
    if workers == 0:
        yield from map(function, items)
        return
    remaining = iter(items)
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="hark-reading")
    try:
        waiting.extend(pool.submit(function, item) for item in islice(remaining, 2 * workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
