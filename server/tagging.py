"""One request's way from upload to window logits: decode on threads, submit to the engine, await, all overlapping.

upload ─► WindowReader (decode threads) ─► engine.submit ─► logits of each window, in order
                    ▲                                              │
                    └── only as many windows as `engine.room` ─────┘
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

import numpy as np

from model.audio import Channels
from model.windows import Window, WindowGrid
from server.engine import DeadlineError
from server.fair_queue import ItemResult, Priority
from server.served_models import ServedModel
from server.service import Service
from server.tracing import record_stage
from server.uploads import Upload
from server.window_reader import Reading, WindowReader

Result = TypeVar("Result")

STEP_WINDOWS = 3  # decoded per turn on a thread: three tell a clip of two windows from a longer one at once


class TooManyWindowsError(ValueError):
    """A small hop over a long sound gives more windows than one request may have."""


@dataclass
class Timings:
    """Where a request's time went, in seconds.

    decode and postprocess are this request's own work; queue is its longest wait for the device; features and inference
    are the whole of every batch that held one of its windows.
    """

    started: float = field(default_factory=time.perf_counter)
    decode: float = 0.0
    queue: float = 0.0
    features: float = 0.0
    inference: float = 0.0
    postprocess: float = 0.0
    _batches: set[int] = field(default_factory=set)

    def add(self, result: ItemResult) -> None:
        """Counts one window's result."""
        self.queue = max(self.queue, result.queue_seconds)
        if result.batch not in self._batches:
            self._batches.add(result.batch)
            self.features += result.features_seconds
            self.inference += result.inference_seconds
            record_stage("queue", result.queue_seconds, result.features_seconds + result.inference_seconds)
            record_stage("features", result.features_seconds, result.inference_seconds)
            record_stage("inference", result.inference_seconds)

    @contextmanager
    def measure_postprocess(self) -> Iterator[None]:
        """Times what turns logits into labels."""
        started = time.perf_counter()
        yield
        self.postprocess = time.perf_counter() - started
        record_stage("postprocess", self.postprocess)

    def milliseconds(self) -> dict[str, float]:
        """The answer's `timing`, up to now."""
        total = time.perf_counter() - self.started
        seconds = {"decode": self.decode, "queue": self.queue, "features": self.features, "inference": self.inference}
        return {f"{stage}_ms": round(1000 * value, 3) for stage, value in {**seconds, "total": total}.items()}


@dataclass(frozen=True)
class HeardWindow:
    """One window's place in the sound, its logits float32 (C,) and its embedding float32 (D,), before the head.

    `own_scores` float32 (K,) are those of the classes that users have taught the model.
    `channel` is None where channels were mixed.
    """

    start_seconds: float
    end_seconds: float
    logits: np.ndarray
    embedding: np.ndarray
    own_scores: np.ndarray
    channel: int | None = None


class UploadTagger:
    """Tags one upload; an async context manager that admits the request and lets go of everything when left.

    It closes the upload, on a decode thread, as soon as no step reads it any more.
    """

    def __init__(
        self,
        service: Service,
        upload: Upload,
        model: ServedModel,
        grid: WindowGrid,
        timeout_seconds: float | None = None,
        request_id: str = "",
        priority: Priority = "interactive",
        channels: Channels = "mixed",
        place: object = None,
    ) -> None:
        self.timings = Timings()
        self.model = model
        self.request_id = request_id
        self.own = service.own_classes.of(model.checkpoint)  # the same for all of the upload
        self._service = service
        self._priority: Priority = priority
        self._place = place
        self._deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        settings = service.settings
        max_channels = settings.max_channels if channels == "split" else None
        reading = Reading(model.sample_rate, grid, settings.max_audio_seconds, max_channels)
        self._reader = WindowReader(upload, reading)
        self._submitted = 0
        self._pending: deque[tuple[Window, asyncio.Future[ItemResult]]] = deque()

    async def __aenter__(self) -> Self:
        """Raises: QueueFullError, EngineClosedError."""
        try:
            self._job = self._service.engine.admit(
                self.model.lane, self._deadline, self.request_id, self._priority, self._place
            )
        except BaseException:
            self._service.run_soon(self._reader.close)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._service.engine.release(self._job)
        if not self._reader.closed:
            self._service.run_soon(self._reader.close)
        for _, future in self._pending:
            if not future.cancel() and not future.cancelled():
                future.exception()  # looked at, so that asyncio does not complain

    @property
    def declared_seconds(self) -> float | None:
        """The sound's duration as its header declares it, where it does; known from the first window on."""
        return self._reader.declared_seconds

    async def windows(self) -> AsyncIterator[HeardWindow]:
        """Yields windows in order, those of one place by channel, while later ones are decoded and run.

        Raises: AudioError, TooManyChannelsError, TooManyWindowsError, DeadlineError, InferenceFailedError,
        EngineClosedError.
        """
        while True:
            room = self._service.engine.room(len(self._pending))
            if room and not self._reader.exhausted:
                await self._submit_step(min(room, STEP_WINDOWS))
            elif self._pending:
                yield await self._next()
            else:
                break
        self._service.metrics.stage_seconds.labels(self.model.name, "decode").observe(self._reader.seconds)

    async def _submit_step(self, count: int) -> None:
        windows = await self._before_deadline(self._service.run_in_thread(self._reader.read, count))
        record_stage("decode", self._reader.seconds - self.timings.decode)
        self.timings.decode = self._reader.seconds
        limit = self._service.settings.max_request_windows
        self._submitted += len(windows)
        if self._submitted > limit:
            raise TooManyWindowsError(f"the sound has more than {limit} windows; send a larger hop_seconds")
        futures = self._service.engine.submit_all(self._job, [window.waveform for window in windows])
        self._pending.extend(zip(windows, map(asyncio.wrap_future, futures), strict=True))

    async def _next(self) -> HeardWindow:
        window, future = self._pending[0]
        result = await self._before_deadline(future)
        self._pending.popleft()
        self.timings.add(result)
        rate = self.model.sample_rate
        span = (window.start_sample / rate, window.end_sample / rate)
        return HeardWindow(*span, result.logits, result.embedding, self.own.scores(result.embedding), window.channel)

    async def _before_deadline(self, answer: Awaitable[Result]) -> Result:
        remaining = None if self._deadline is None else self._deadline - time.monotonic()
        try:
            async with asyncio.timeout(remaining):
                return await answer
        except TimeoutError as error:
            raise DeadlineError("the deadline passed before the sound was tagged") from error
