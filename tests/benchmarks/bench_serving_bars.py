"""The serving benchmark's bars: each starts its own server, measures, and answers what was found beside its limit."""

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from model import checkpoint
from model.backbones.ast_model import AST, ASTConfig
from model.checkpoint import Checkpoint, CheckpointConfig, load
from model.features import AUDIOSET_FBANK
from model.labels import audioset_labels
from model.pipeline import tag
from model.registry import find_checkpoint
from server.memory import resident_bytes
from server.settings import Settings
from tests.benchmarks.bench_serving_client import (
    RATE,
    Client,
    Reply,
    closed_loop,
    make_clip,
    open_loop,
    quantile,
    rate_of,
    watch_memory,
    write_long_clip,
)
from tests.server.live import Live, live_server

MODEL = "aum-tiny"
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Sizes:
    """How much of everything; the defaults are the bars' own."""

    repeats: int = 50
    clients: int = 32
    seconds: float = 20.0
    ast_depth: int = 12
    upload_hours: float = 2.0
    overload_seconds: float = 60.0
    deadline_seconds: float = 2.0
    memory_requests: int = 10_000
    memory_runtime: str = "fake"


QUICK = Sizes(repeats=5, clients=8, seconds=3, ast_depth=1, upload_hours=0.05, overload_seconds=5, memory_requests=400)


@dataclass(frozen=True)
class Finding:
    """One number and the limit it must keep: at most, or at least, that much."""

    bar: str
    what: str
    value: float
    limit: float
    at_most: bool = True
    note: str = ""

    @property
    def passed(self) -> bool:
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def latency(sizes: Sizes) -> list[Finding]:
    """A 10-second clip on an idle server against `pipeline.tag` of the same bytes, in turn."""
    clip, loaded = make_clip(10), load(find_checkpoint(MODEL))
    offline, served = [], []
    with serve(MODEL) as live:
        client = Client(live.url)
        for i in range(sizes.repeats + 5):
            offline.append(seconds_of(lambda: tag(clip, loaded)))
            time.sleep(0.02)
            reply = client.post(clip)
            assert reply.status == 200, (reply.status, reply.body[:300])
            served.append(reply.seconds)
            time.sleep(0.02)
            if i < 5:  # warm-up
                offline.clear()
                served.clear()
        client.close()
    more = 1000 * (median(served) - median(offline))
    note = f"served {1000 * median(served):.1f} ms, offline {1000 * median(offline):.1f} ms"
    return [Finding("latency", "ms over pipeline.tag, medians", more, 3.0, note=note)]


def throughput(sizes: Sizes) -> list[Finding]:
    """Clips of one window from many clients, against the network alone on batches of the server's size."""
    findings = [saturate(MODEL, load(find_checkpoint(MODEL)), sizes, 0.75)]
    with TemporaryDirectory() as folder:
        path = make_ast(Path(folder) / "ast-random", sizes.ast_depth)
        findings.append(saturate(str(path), load(path), sizes, 0.92))
    return findings


def saturate(name: str, loaded: Checkpoint, sizes: Sizes, limit: float) -> Finding:
    """The share of the raw network's windows per second that the server reaches; raw is timed before and after."""
    budget = Settings(models=[name]).batch_audio_seconds("cpu")
    batch = max(1, int(budget / loaded.config.window_seconds))
    clip = make_clip(loaded.config.window_seconds)
    raw = [raw_rate(loaded, batch, sizes.seconds / 4)]
    with serve(name) as live:
        closed_loop(live.url, sizes.clients, 1, clip)
        start = time.perf_counter()
        replies = closed_loop(live.url, sizes.clients, sizes.seconds, clip)
        span = max(reply.finished for reply in replies) - start
    raw.append(raw_rate(loaded, batch, sizes.seconds / 4))
    served = rate_of(replies, start, span)
    assert all(reply.status == 200 for reply in replies), {reply.status for reply in replies}
    beside = raw_rate_beside(loaded, batch, sizes.seconds / 4)
    note = f"{served:.2f} of {sum(raw) / 2:.2f} windows/s ({raw[0]:.2f} before, {raw[1]:.2f} after), batches of {batch}"
    note += f"; without a server, one such batch on each core: {beside:.2f}"
    return Finding("throughput", f"{loaded.name} by its raw network", 2 * served / sum(raw), limit, False, note)


def raw_rate(loaded: Checkpoint, batch: int, seconds: float) -> float:
    """Windows per second of the network alone."""
    features = loaded.config.features
    log_mel = torch.randn(batch, features.frames, features.mels)
    with torch.inference_mode():
        loaded.network(log_mel)
        started, windows = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            loaded.network(log_mel)
            windows += batch
    return windows / (time.perf_counter() - started)


def raw_rate_beside(loaded: Checkpoint, batch: int, seconds: float) -> float:
    """Windows per second of the network alone, a batch on each core."""

    def run(_: int) -> float:
        torch.set_num_threads(1)  # of this thread
        return raw_rate(loaded, batch, seconds)

    cores = torch.get_num_threads()
    with ThreadPoolExecutor(cores) as pool:
        return sum(pool.map(run, range(cores)))


def make_ast(folder: Path, depth: int) -> Path:
    """A checkpoint of an AST of base size (or less deep) with random weights and 10-second windows."""
    torch.manual_seed(0)
    labels = audioset_labels()
    sizes = {"classes": len(labels), "frames": 1024, "depth": depth}
    config = CheckpointConfig(folder.name, "ast", sizes, AUDIOSET_FBANK, window_seconds=10.0, hop_seconds=10.0)
    golden = torch.randn(RATE) * 0.1
    checkpoint.save(folder, config, AST(ASTConfig(**sizes)).state_dict(), labels, golden, "Random weights.\n")
    return folder


def upload(sizes: Sizes) -> list[Finding]:
    """A long upload with short clips sent meanwhile: timeline, memory, and how long the short ones wait."""
    clip, seconds = make_clip(2), 3600 * sizes.upload_hours
    with TemporaryDirectory() as folder, serve(MODEL) as live:
        path = Path(folder) / "long.wav"
        write_long_clip(path, seconds)
        client = Client(live.url)
        idle = [client.post(clip).seconds for _ in range(sizes.repeats + 5)][5:]
        before = resident_bytes(live.process.pid)
        with watch_memory(live.process.pid) as most, in_background(lambda: Client(live.url).post(path)) as long:
            busy = []
            while not long:
                time.sleep(0.1)
                busy.append(client.post(clip).seconds)
            grown = (most() - before) / MEBIBYTE
    speed = f"{seconds / long[0].seconds:.0f} times real time"
    note = f"idle {1000 * median(idle):.1f} ms, busy {1000 * median(busy):.1f} ms, {len(busy)} clips, {speed}"
    return [
        Finding("upload", "share of the timeline answered", answered_share(long[0], seconds), 1.0, False),
        Finding("upload", "MiB over idle", grown, 200, note=f"idle {before / MEBIBYTE:.0f} MiB"),
        Finding("upload", "short clips' median by idle", median(busy) / median(idle), 3.0, note=note),
    ]


def answered_share(reply: Reply, seconds: float) -> float:
    """How much of the sound the windows cover, from its beginning and without a gap."""
    assert reply.status == 200, (reply.status, reply.body[:300])
    covered = 0.0
    for window in json.loads(reply.body)["windows"]:
        if window["start_seconds"] > covered:
            break
        covered = window["end_seconds"]
    return covered / seconds


OVERLOAD_ROUNDS = 8


def overload(sizes: Sizes) -> list[Finding]:
    """Three times the peak rate at random moments, with a deadline each; in rounds, the peak before and after each.

    The machine's own speed changes within a minute by more than the limit leaves.
    """
    clip, query = make_clip(5), f"?timeout_seconds={sizes.deadline_seconds:g}"
    seconds = sizes.overload_seconds / OVERLOAD_ROUNDS
    replies: list[Reply] = []
    goods: list[float] = []
    with serve(MODEL) as live:
        closed_loop(live.url, sizes.clients, 2, clip)
        peaks = [_peak(live.url, clip, sizes.clients, seconds / 3)]
        for _ in range(OVERLOAD_ROUNDS):
            start = time.perf_counter() + 0.5
            came = open_loop(live.url, 3 * peaks[-1], seconds, clip, query)
            goods.append(rate_of([r for r in came if r.seconds <= sizes.deadline_seconds], start, seconds))
            replies += came
            peaks.append(_peak(live.url, clip, sizes.clients, seconds / 3))
    shares = [2 * good / (before + after) for good, before, after in zip(goods, peaks, peaks[1:], strict=False)]
    rounds = ", ".join(f"{share:.2f}" for share in shares)
    refused = [reply for reply in replies if reply.status == 503]
    accepted = [reply for reply in replies if reply.status != 503]
    late = sum(reply.status != 200 or reply.seconds > sizes.deadline_seconds for reply in accepted)
    hints = [int(reply.retry_after or 0) for reply in refused]
    counts = f"{len(accepted)} accepted, {late} of them late or failed, {len(refused)} refused"
    last = f"refusals: median {1000 * quantile([r.seconds for r in refused], 0.5):.0f} ms"
    return [
        Finding(
            "overload",
            "goodput by peak, median of rounds",
            median(shares),
            0.9,
            False,
            f"{rounds}; {median(goods):.1f} of {median(peaks):.1f} /s; {counts}",
        ),
        Finding(
            "overload",
            "accepted requests' p99 by deadline",
            quantile([reply.seconds for reply in accepted], 0.99) / sizes.deadline_seconds,
            1.0,
        ),
        Finding("overload", "refusals' p99, ms", 1000 * quantile([r.seconds for r in refused], 0.99), 50, note=last),
        Finding("overload", "least Retry-After, s", min(hints, default=0), 1, False, f"most {max(hints, default=0)} s"),
    ]


def _peak(url: str, clip: bytes, clients: int, seconds: float) -> float:
    start = time.perf_counter()
    return rate_of(closed_loop(url, clients, seconds, clip), start, seconds)


def drain(sizes: Sizes) -> list[Finding]:
    """SIGTERM while every client has a request open.

    A request begun after the first refusal was never accepted: it may break off when the listening socket closes.
    """
    clip = make_clip(5)
    with serve(MODEL) as live:
        stop = threading.Timer(sizes.seconds / 4, live.process.send_signal, [signal.SIGTERM])
        stop.start()
        replies = closed_loop(live.url, sizes.clients, sizes.seconds / 2, clip, keep=False)
        code = live.process.wait(60)
    served = sum(reply.status == 200 for reply in replies)
    shut = min((reply.finished for reply in replies if reply.status == 503), default=math.inf)
    lost = [reply for reply in replies if reply.status not in (200, 503, -1) and reply.started < shut]
    note = f"{served} answered, {sum(r.status == 503 for r in replies)} refused; lost: {[r.status for r in lost]}"
    return [
        Finding("drain", "accepted requests lost", len(lost), 0, note=note),
        Finding("drain", "exit code", code, 0),
    ]


def memory(sizes: Sizes) -> list[Finding]:
    """Requests of mixed lengths; what the server holds after the first tenth, and after all."""
    clips = [make_clip(seconds, seed) for seed, seconds in enumerate((0.2, 1, 2.5, 5, 7, 11, 16, 30))]
    seen: list[int] = []
    with serve(MODEL, RUNTIME=sizes.memory_runtime) as live:
        for share in (0.1, 0.9):
            send_all(live, [clips[i % len(clips)] for i in range(round(share * sizes.memory_requests))])
            seen.append(resident_bytes(live.process.pid))
    note = f"{seen[0] / MEBIBYTE:.0f} and {seen[1] / MEBIBYTE:.0f} MiB; {sizes.memory_runtime} runtime"
    what = f"memory after {sizes.memory_requests} requests by that after a tenth of them"
    return [Finding("memory", what, seen[1] / seen[0], 1.05, note=note)]


def send_all(live: Live, bodies: list[bytes], clients: int = 4) -> None:
    """Sends each once, over a few connections."""
    left, lock = iter(bodies), threading.Lock()

    def run() -> None:
        client = Client(live.url)
        while True:
            with lock:
                body = next(left, None)
            if body is None:
                break
            assert client.post(body).status == 200
        client.close()

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def serve(model: str, **settings: str) -> Iterator[Live]:
    """A server of its own with the real runtime, quiet, and with room for every client."""
    defaults = {"RUNTIME": "torch", "LOG_LEVEL": "error", "MODELS": model}
    with live_server(**{**defaults, **settings}) as live:
        yield live


@contextmanager
def in_background(call: Callable[[], Reply]) -> Iterator[list[Reply]]:
    """A list that holds the call's reply once it has come; left when it has."""
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(call()))
    thread.start()
    yield replies
    thread.join()


def seconds_of(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


BARS: dict[str, Callable[[Sizes], list[Finding]]] = {
    function.__name__: function for function in (latency, throughput, upload, overload, drain, memory)
}


def with_sizes(quick: bool, **given: float | str | None) -> Sizes:
    """The bars' sizes, or the quick ones, with what was given instead."""
    return replace(QUICK if quick else Sizes(), **{name: value for name, value in given.items() if value is not None})
