"""Everything Prometheus sees: one registry per app, base units, and only labels with a bounded set of values."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

MEDIA_TYPE = CONTENT_TYPE_LATEST
# From half a millisecond to about ten minutes, a factor of two apart: clips and hour-long uploads on one scale.
SECONDS_BUCKETS = tuple(0.0005 * 2**step for step in range(21))
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics named in the HTTP contract, as attributes without their `hark_` prefix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("hark_requests", "Requests answered.", "route", "code")
        self.request_seconds = self._histogram(
            "hark_request_duration_seconds", "From the request's first byte to the answer's last.", "route"
        )
        self.stage_seconds = self._histogram(
            "hark_stage_duration_seconds",
            "Time in a stage: decode and postprocess per request, queue per window, features and inference per batch.",
            "model",
            "stage",
        )
        self.batch_windows = Histogram(
            "hark_batch_windows", "Windows in one batch.", ["model"], buckets=BATCH_BUCKETS, registry=self.registry
        )
        self.queue_windows = self._gauge("hark_queue_windows", "Windows waiting for the device.", "model")
        self.queue_audio_seconds = self._gauge(
            "hark_queue_audio_seconds", "Audio waiting for the device, windows counted whole.", "model"
        )
        self.audio_seconds = self._counter("hark_audio_seconds", "Sound tagged, padding not counted.", "model")
        self.windows = self._counter("hark_windows", "Windows tagged.", "model")
        self.rejected = self._counter("hark_rejected", "Requests refused at the door.", "reason")
        self.cancelled = self._counter("hark_cancelled", "Requests whose caller left before the answer.")
        self.inflight_requests = self._gauge("hark_inflight_requests", "Requests being answered.")
        self.worker_restarts = self._counter("hark_worker_restarts", "Times a device's worker died and started anew.")
        self.runtime_refused = self._counter(
            "hark_runtime_refused", "Runtimes that could not serve a model, so another one does.", "model", "runtime"
        )
        self.device_memory_bytes = self._gauge(
            "hark_device_memory_bytes",
            "Memory held on the device (on a CPU: the server's resident memory).",
        )
        self.model_info = self._gauge(
            "hark_model_info",
            "Always 1; the labels say what runs.",
            *("model", "backbone", "runtime", "precision", "device", "scan"),
        )
        self.golden_max_abs_diff = self._gauge(
            "hark_golden_max_abs_diff", "Largest logit difference to the checkpoint's golden clip.", "model"
        )

    def watch_queue(self, model: str, windows: Callable[[], float], audio_seconds: Callable[[], float]) -> None:
        """Reads a model's queue through these functions whenever the metrics are asked for."""
        self.queue_windows.labels(model).set_function(windows)
        self.queue_audio_seconds.labels(model).set_function(audio_seconds)

    def forget_model(self, model: str) -> None:
        """Drops every series of a model that is served no longer."""
        for metric in vars(self).values():
            if "model" in getattr(metric, "_labelnames", ()):
                metric.remove_by_labels({"model": model})

    def render(self) -> bytes:
        """The whole registry in Prometheus's text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=SECONDS_BUCKETS, registry=self.registry)
