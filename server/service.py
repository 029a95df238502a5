"""What one server process holds: settings, metrics, engine, models and decode threads, from start to drain.

starting ──► ready ──► draining
    └──────► failed
"""

import asyncio
import contextvars
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, TypeVar

import structlog

from model.checkpoint import CheckpointError
from model.registry import UnknownModelError
from server.engine import EngineLimits
from server.in_flight import InFlight
from server.memory import device_memory_bytes
from server.metered_engine import MeteredEngine
from server.metrics import Metrics
from server.model_pool import ModelPool
from server.model_source import load_source
from server.oip_statistics import InferStatistics
from server.own_classes import ClassRoom, classes_folder
from server.quota import Quota
from server.served_models import ServedModel, ServingError, load_models
from server.settings import Settings
from server.traffic import TrafficSplit

log = structlog.get_logger()
Result = TypeVar("Result")


class NotReadyError(Exception):
    """The server is starting, draining or has failed to start; `retry_after_seconds` says when to ask again."""

    def __init__(self, message: str, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Service:
    """Owns the engine and its models; routes find it as `request.app.state.service`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        limits = EngineLimits(
            settings.max_queue_audio_seconds, settings.max_requests, settings.max_request_windows_in_flight
        )
        self.quota = Quota(settings.quota_requests_per_minute, settings.quota_audio_seconds_per_minute)
        self.engine = MeteredEngine(limits, self.metrics, self.quota)
        self._in_flight = InFlight()
        self.infer_statistics = InferStatistics()
        self.pool = ModelPool(self.engine, self.metrics, self._in_flight)
        self.state: Literal["starting", "ready", "draining", "failed"] = "starting"
        self.started_at = time.time()
        self.failure = ""  # why loading failed, in one sentence
        self.on_ready: Callable[[], None] = lambda: None
        self.on_failure: Callable[[], None] = lambda: None
        self.own_classes = ClassRoom(classes_folder(settings.classes_folder), settings.max_own_classes)
        self._drain_until: float | None = None
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
            self.pool.open(models, self.settings.default_model, TrafficSplit(self.settings.traffic_split))
        except (ServingError, UnknownModelError, CheckpointError) as error:
            self.fail(str(error))
            return
        except Exception as error:
            log.exception("models could not be loaded")
            self.fail(str(error))
            return
        if self.state == "starting":
            self.state = "ready"
            log.info("ready", models=list(models), seconds=round(time.monotonic() - started, 2))
            self.on_ready()

    def fail(self, reason: str) -> None:
        """Turns unready for good; whoever runs the service ends it."""
        self.state, self.failure = "failed", reason
        self.on_failure()

    # While serving

    @property
    def models(self) -> Mapping[str, ServedModel]:
        """What is served now, by name."""
        return self.pool.models

    def check_ready(self) -> None:
        """Raises: NotReadyError unless models are loaded and the server is not draining."""
        if self.state == "draining":
            raise NotReadyError("the server is shutting down; send the request to another replica")
        self._check_loaded()

    def _check_loaded(self) -> None:
        if self.state == "failed":
            raise NotReadyError("the server cannot go on; its log says why", 60)
        if not self.models:
            raise NotReadyError("the models are still being loaded")

    def model(self, name: str | None) -> ServedModel:
        """The model of this name; without one, the one that the traffic's split or the default gives this request.

        Raises: NotReadyError before the models are loaded; ModelNotFoundError naming the models there are.
        """
        self._check_loaded()
        return self.pool.choose(name, structlog.contextvars.get_contextvars().get("request_id", ""))

    async def put_model(self, name: str, source: str, make_default: bool) -> bool:
        """Loads a model while serving, and serves it under this name; True where the name is new.

        Raises: NotReadyError, ModelLoadError; then everything stays as it was.
        """
        return await self.pool.put(name, lambda: load_source(source, self.settings), make_default, self.check_ready)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts a request in flight; `stop` waits for it."""
        with self._in_flight.request(), self.metrics.inflight_requests.track_inprogress():
            yield

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
        finished = await self._in_flight.wait_until_idle(self.drain_seconds_left())
        await asyncio.to_thread(self.engine.stop, 0)
        await self._in_flight.wait_until_idle(1)  # those whose work was cancelled say so to their callers
        self._threads.shutdown(wait=True)
        await self.pool.close()
        log.info("stopped", all_finished=finished and not self._in_flight.cut_off)
