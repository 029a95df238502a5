"""What one server process holds: settings, metrics, engine, models and decode threads, from start to drain.

starting ──► ready ──► draining
    └──────► failed
"""

import asyncio
import contextvars
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import Literal, TypeVar

import structlog

from model.checkpoint import CheckpointError
from model.registry import UnknownModelError
from server.engine import Engine, EngineLimits
from server.memory import device_memory_bytes
from server.metrics import Metrics
from server.served_models import ServedModel, ServingError, load_models
from server.settings import Settings

log = structlog.get_logger()
Result = TypeVar("Result")


class NotReadyError(Exception):
    """The server is starting, draining or has failed to start; `retry_after_seconds` says when to ask again."""

    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class ModelNotFoundError(LookupError):
    """No model of this name is served."""


class Service:
    """Owns the engine and its models; routes find it as `request.app.state.service`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        limits = EngineLimits(
            settings.max_queue_audio_seconds, settings.max_requests, settings.max_request_windows_in_flight
        )
        self.engine = Engine(limits, self.metrics)
        self.models: dict[str, ServedModel] = {}
        self.state: Literal["starting", "ready", "draining", "failed"] = "starting"
        self.started_at = time.time()
        self.failure = ""  # why loading failed, in one sentence
        self.on_ready: Callable[[], None] = lambda: None
        self.on_failure: Callable[[], None] = lambda: None
        self._requests = 0
        self._cut_off = 0  # requests cancelled before their answer
        self._drain_until: float | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._threads = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="hark-decode")
        self._loading: asyncio.Task[None] | None = None
        self.metrics.device_memory_bytes.set_function(device_memory_bytes)

    # From start to ready

    async def start(self) -> None:
        """Starts the worker, and loads the models in the background so that liveness answers at once."""
        self.engine.start()
        self._loading = asyncio.create_task(self._load(), name="hark-load")

    async def wait_until_loaded(self) -> None:
        """Returns when loading has ended, well or not."""
        if self._loading is not None:
            await asyncio.wait([self._loading])

    async def _load(self) -> None:
        started = time.monotonic()
        try:
            models = await asyncio.to_thread(load_models, self.settings)
        except (ServingError, UnknownModelError, CheckpointError) as error:
            self._fail(error)
            return
        except Exception as error:
            log.exception("models could not be loaded")
            self._fail(error)
            return
        for model in models.values():
            self._announce(model)
        self.models = models
        if self.state == "starting":
            self.state = "ready"
            log.info("ready", models=list(models), seconds=round(time.monotonic() - started, 2))
            self.on_ready()

    def _fail(self, error: Exception) -> None:
        self.state, self.failure = "failed", str(error)
        self.on_failure()

    def _announce(self, model: ServedModel) -> None:
        engine, lane, info = self.engine, model.lane, model.info
        self.metrics.watch_queue(
            model.name,
            lambda: engine.queued_windows(lane),
            lambda: engine.queued_windows(lane) * lane.window_seconds,
        )
        backbone = model.checkpoint.config.backbone
        runs = (model.name, backbone, info.runtime, info.precision, info.device, info.scan or "")
        self.metrics.model_info.labels(*runs).set(1)
        self.metrics.golden_max_abs_diff.labels(model.name).set(model.golden_max_abs_diff)
        log.info("model loaded", model=model.name, golden_max_abs_diff=model.golden_max_abs_diff, **asdict(info))

    # While serving

    def check_ready(self) -> None:
        """Raises: NotReadyError unless models are loaded and the server is not draining."""
        if self.state == "draining":
            raise NotReadyError("the server is shutting down; send the request to another replica")
        self._check_loaded()

    def _check_loaded(self) -> None:
        if self.state == "failed":
            raise NotReadyError("the models could not be loaded; the server's log says why", 60)
        if not self.models:
            raise NotReadyError("the models are still being loaded")

    def model(self, name: str | None) -> ServedModel:
        """The model of this name, by default the first.

        Raises: NotReadyError before the models are loaded; ModelNotFoundError naming the models there are.
        """
        self._check_loaded()
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise ModelNotFoundError(f"no model {name!r} is served here; there are: {', '.join(self.models)}")
        return self.models[name]

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts a request in flight; `stop` waits for it."""
        self._requests += 1
        self._idle.clear()
        try:
            with self.metrics.inflight_requests.track_inprogress():
                yield
        except asyncio.CancelledError:
            self._cut_off += 1
            raise
        finally:
            self._requests -= 1
            if self._requests == 0:
                self._idle.set()

    async def run_in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Calls a function on the decode threads, with this request's id in its log lines."""
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, context.run, function, *arguments)

    def run_soon(self, function: Callable[[], object]) -> None:
        """Calls a function on the decode threads and does not wait for it."""
        self._threads.submit(function)

    # To the end

    def begin_drain(self) -> None:
        """Turns unready and refuses new work; accepted work goes on. A failed service stays failed."""
        if self._drain_until is None:
            self._drain_until = time.monotonic() + self.settings.drain_seconds
        if self.state not in ("failed", "draining"):
            self.state = "draining"
            log.info("draining")
        self.engine.close_door()

    def drain_seconds_left(self) -> float:
        """What is left of the one grace period that accepted work has, from the first `begin_drain` on."""
        if self._drain_until is None:
            return self.settings.drain_seconds
        return max(0.0, self._drain_until - time.monotonic())

    async def stop(self) -> None:
        """Finishes accepted work within the grace period, cancels the rest and gives everything back."""
        self.begin_drain()
        await self.wait_until_loaded()
        finished = await self._wait_until_idle(self.drain_seconds_left())
        await asyncio.to_thread(self.engine.stop, 0)
        await self._wait_until_idle(1)  # those whose work was cancelled say so to their callers
        self._threads.shutdown(wait=True)
        for model in self.models.values():
            model.lane.runtime.close()
        log.info("stopped", all_finished=finished and not self._cut_off)

    async def _wait_until_idle(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
