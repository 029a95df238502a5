"""Which models answer: the served ones by name, the default, the traffic's split, and changing them while serving.

loading ──► ready ──► retiring ──► gone          a replaced or deleted model answers what it has accepted, then closes
   └─────► failed                                what was served under that name before goes on
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

import structlog

from server.in_flight import InFlight, current_stay
from server.metered_engine import MeteredEngine
from server.metrics import Metrics
from server.served_models import ModelSettingsError, ServedModel
from server.traffic import TrafficSplit

log = structlog.get_logger()
KEPT_FAILURES = 16  # of which callers are told; older ones are in the log
POLL_SECONDS = 0.05  # between looks at whether a model's last batch, whose callers have left, is done


class ModelNotFoundError(LookupError):
    """No model of this name is served."""


class DefaultModelError(ValueError):
    """The default model cannot be deleted."""


class ModelLoadError(ValueError):
    """What should be served cannot be loaded; the message says why."""


@dataclass(frozen=True)
class Change:
    """A model on its way in or out; `error` says why one failed."""

    name: str
    state: Literal["loading", "failed", "retiring"]
    error: str = ""


class ModelPool:
    """Owns the served models. Used on the event loop only, but for `load`, which runs on a thread.

    `models` is replaced whole and never changed in place, so whoever holds it sees one moment.
    """

    def __init__(self, engine: MeteredEngine, metrics: Metrics, in_flight: InFlight) -> None:
        self.models: Mapping[str, ServedModel] = {}
        self.default = ""
        self._split = TrafficSplit()
        self._engine = engine
        self._metrics = metrics
        self._in_flight = in_flight
        self._changes: dict[str, Change] = {}  # what is being loaded, and what failed to
        self._retiring: dict[asyncio.Task[None], ServedModel] = {}
        self._one_at_a_time = asyncio.Lock()

    def open(self, models: Mapping[str, ServedModel], default: str | None, split: TrafficSplit) -> None:
        """Serves these from now on; the first is the default where none is named.

        Raises: ModelSettingsError for a default or a share of a model that is not among them.
        """
        for setting, names in {"default_model": [default] if default else [], "traffic_split": split.shares}.items():
            if unknown := [name for name in names if name not in models]:
                raise ModelSettingsError(f"{setting} names {unknown[0]!r}, but served are: {', '.join(models)}")
        for model in models.values():
            self._announce(model)
        self.models, self.default, self._split = models, default or next(iter(models)), split

    def choose(self, name: str | None, request_id: str = "") -> ServedModel:
        """The model of this name; without one, the split's for this request, or the default.

        A request keeps the model that it met at the door, whatever changes while its body comes.

        Raises: ModelNotFoundError naming the models there are.
        """
        met = stay.models if (stay := current_stay.get()) else {}
        if name not in met:
            met[name] = self._find(self._share(request_id) if name is None else name)
        return met[name]

    def _share(self, request_id: str) -> str:
        if not self._split.shares:
            return self.default
        return self._split.choose(request_id or random.randbytes(8).hex(), self.models) or self.default

    def _find(self, name: str) -> ServedModel:
        if name not in self.models:
            raise ModelNotFoundError(f"no model {name!r} is served here; there are: {', '.join(self.models)}")
        return self.models[name]

    @property
    def shares(self) -> dict[str, float]:
        """The share in [0, 1] that each model has of the requests that name none; empty where they are not split."""
        return self._split.shares_of(self.models)

    def state_of(self, name: str) -> Literal["ready", "replacing"]:
        """What a served model does; it answers all the while that another is loaded to take its name."""
        change = self._changes.get(name)
        return "replacing" if change is not None and change.state == "loading" else "ready"

    @property
    def changes(self) -> list[Change]:
        """What is loading, what failed to load, and what is retiring."""
        return [*self._changes.values(), *(Change(model.name, "retiring") for model in self._retiring.values())]

    # Changes while serving

    async def put(
        self, name: str, load: Callable[[], ServedModel], make_default: bool, check: Callable[[], None]
    ) -> bool:
        """Loads a model on a thread, one at a time, then serves it under this name; True where the name is new.

        `check` raises where it came too late, as in a drain; then, and where loading fails, nothing changes.

        Raises: ModelLoadError, which `load` raises for what cannot be served; whatever `check` raises.
        """
        async with self._one_at_a_time:
            check()
            self._changes[name] = Change(name, "loading")
            try:
                model = renamed(await asyncio.to_thread(load), name)
            except BaseException as error:
                self._note_failure(name, str(error) if isinstance(error, ModelLoadError) else "see the server's log")
                raise
            del self._changes[name]
            try:
                check()
            except BaseException:
                await asyncio.to_thread(close, model)
                raise
            return self._switch(model, make_default)

    def make_default(self, name: str) -> None:
        """Raises: ModelNotFoundError."""
        self.default = self._find(name).name
        log.info("default model changed", model=name)

    def delete(self, name: str) -> None:
        """Serves this model no longer; what it has accepted is answered.

        Raises: ModelNotFoundError; DefaultModelError.
        """
        model = self._find(name)
        if name == self.default:
            raise DefaultModelError(f"{name!r} is the default model; make another one the default first")
        self.models = {other: served for other, served in self.models.items() if other != name}
        self._retire(model)

    async def close(self) -> None:
        """Closes every model; the engine must have stopped. A retiring one that is still held ends with the process."""
        if self._retiring:
            waiting = (await asyncio.wait(self._retiring, timeout=1))[1]
            for task in waiting:
                task.cancel()
        for model in self.models.values():
            close(model)

    def _note_failure(self, name: str, reason: str) -> None:
        """The newest stands last; the oldest make room."""
        del self._changes[name]
        self._changes[name] = Change(name, "failed", reason)
        for oldest in list(self._changes)[:-KEPT_FAILURES]:
            del self._changes[oldest]

    def _switch(self, model: ServedModel, make_default: bool) -> bool:
        """From here on new requests meet the new model; those that hold the old one go on with it."""
        replaced = self.models.get(model.name)
        self._announce(model)
        self.models = {**self.models, model.name: model}
        if make_default:
            self.make_default(model.name)
        if replaced is not None:
            self._retire(replaced)
        return replaced is None

    def _retire(self, model: ServedModel) -> None:
        task = asyncio.create_task(self._close_when_unused(model), name=f"hark-retire-{model.name}")
        self._retiring[task] = model
        task.add_done_callback(lambda done: self._retiring.pop(done, None))

    async def _close_when_unused(self, model: ServedModel) -> None:
        """Who may still use the model is in flight by now, for nobody finds it any more."""
        await self._in_flight.wait_for(lambda stay: stay.holds(model))
        while self._engine.uses(model.lane):
            await asyncio.sleep(POLL_SECONDS)
        await asyncio.to_thread(close, model)
        current = self.models.get(model.name)
        if current is None:
            self._metrics.forget_model(model.name)
        log.info("model closed", model=model.name, replaced=current is not None)

    def _announce(self, model: ServedModel) -> None:
        engine, lane, info = self._engine, model.lane, model.info
        self._metrics.watch_queue(
            model.name,
            lambda: engine.queued_windows(lane),
            lambda: engine.queued_windows(lane) * lane.window_seconds,
        )
        self._metrics.model_info.remove_by_labels({"model": model.name})  # what ran under the name before
        backbone = model.checkpoint.config.backbone
        runs = (model.name, backbone, info.runtime, info.precision, info.device, info.scan or "")
        self._metrics.model_info.labels(*runs).set(1)
        self._metrics.golden_max_abs_diff.labels(model.name).set(model.golden_max_abs_diff)
        for refusal in model.refused:
            self._metrics.runtime_refused.labels(model.name, refusal.runtime).inc()
        log.info("model loaded", model=model.name, golden_max_abs_diff=model.golden_max_abs_diff, **asdict(info))


def renamed(model: ServedModel, name: str) -> ServedModel:
    """The same model under another name than its checkpoint's own."""
    if model.name == name:
        return model
    checkpoint = replace(model.checkpoint, config=replace(model.checkpoint.config, name=name))
    return replace(model, checkpoint=checkpoint, lane=replace(model.lane, model=name))


def close(model: ServedModel) -> None:
    """Gives back the devices' memory."""
    for runtime in set(model.lane.runtimes):
        runtime.close()
