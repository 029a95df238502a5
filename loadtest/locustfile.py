"""Sends clips to `POST /classify` and writes one line of JSON per request; run by `compare.py`, or by hand with locust.

    locust -f loadtest/locustfile.py OpenLoop --headless --host http://localhost:8000 --rate 20 --seconds 30 \
        --results results.jsonl

OpenLoop sends at random moments of a fixed mean rate, whatever the server does, and counts latency from the moment when
a request was due: a slow server cannot slow its own test down. ClosedLoop keeps a number of requests under way, which
finds the capacity. Why it matters: "Open Versus Closed: A Cautionary Tale" (Schroeder and others, NSDI 2006).
"""

import itertools
import json
import random
import time
from typing import Any

import gevent
from gevent.pool import Group
from locust import FastHttpUser, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtest.clips import load_clips


@events.init_command_line_parser.add_listener
def add_arguments(parser: LocustArgumentParser) -> None:
    """The options that locust itself does not have."""
    parser.add_argument("--model", default="", help="Model to ask; by default the server's own.")
    parser.add_argument("--rate", type=float, default=10.0, help="OpenLoop: mean requests per second.")
    parser.add_argument("--seconds", type=float, default=10.0, help="How long requests are sent.")
    parser.add_argument("--clips", default="", help="Sound files with commas; by default ten seconds of noise.")
    parser.add_argument("--key", default="", help="API key, where the server wants one.")
    parser.add_argument("--results", default="results.jsonl", help="File that a line per request is appended to.")
    parser.add_argument("--seed", type=int, default=0, help="OpenLoop: seed of the arrival times.")


class Sender(FastHttpUser):
    """Posts one clip after another and writes down how each went."""

    abstract = True
    concurrency = 10_000  # connections; an open loop must never wait for one of its own
    network_timeout = connection_timeout = 120.0

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        options = environment.parsed_options
        assert options is not None
        self.options = options
        self.clips = itertools.cycle(load_clips(options.clips))
        self.path = f"/classify?model={options.model}" if options.model else "/classify"
        self.headers = {"Authorization": f"Bearer {options.key}"} if options.key else {}
        self.results = open(options.results, "a", buffering=1)  # noqa: SIM115  closed in on_stop

    def on_stop(self) -> None:
        self.results.close()

    def send(self, due: float) -> None:
        """Post the next clip; latency counts from `due`, a value of time.perf_counter()."""
        clip: Any = next(self.clips)  # bytes, which the client sends but does not declare
        response = self.client.request("POST", self.path, data=clip, headers=self.headers, name="/classify")
        latency = time.perf_counter() - due
        record: dict[str, Any] = {"due_seconds": due, "latency_seconds": latency, "status": response.status_code}
        record |= {"audio_seconds": 0.0, "server_timing": ""}
        if response.status_code == 200 and response.headers is not None:
            record["audio_seconds"] = json.loads(response.content)["duration_seconds"]
            record["server_timing"] = response.headers["Server-Timing"]
        self.results.write(json.dumps(record) + "\n")


class OpenLoop(Sender):
    """Poisson arrivals at `--rate` requests per second for `--seconds`, then waits for the answers."""

    fixed_count = 1

    @task
    def arrive(self) -> None:
        """The whole run."""
        chance = random.Random(self.options.seed)
        under_way = Group()
        started = due = time.perf_counter()
        while (due := due + chance.expovariate(self.options.rate)) < started + self.options.seconds:
            gevent.sleep(max(0.0, due - time.perf_counter()))
            under_way.spawn(self.send, due)
        under_way.join()
        self.environment.runner.quit()


class ClosedLoop(Sender):
    """`--users` callers, each sending its next clip when it has the answer to the last."""

    @task
    def repeat(self) -> None:
        """One caller's whole run."""
        ends = time.perf_counter() + self.options.seconds
        while time.perf_counter() < ends:
            self.send(time.perf_counter())
        self.environment.runner.quit()
