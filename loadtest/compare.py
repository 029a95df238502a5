"""Loads every model that a server serves, one after another in the same way, and prints one table.

    python -m loadtest.compare --url http://localhost:8000

For each model: one caller (idle latency), several callers (capacity), then random arrivals at shares of that capacity.
Server and load test share this machine unless the URL says otherwise; the numbers then include that competition.
"""

import argparse
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from loadtest.report import Summary, plot_latencies, read_run, table

LOCUSTFILE = Path(__file__).with_name("locustfile.py")


@dataclass(frozen=True)
class Plan:
    """What each model is put through."""

    url: str
    seconds: float = 10.0
    callers: int = 8
    loads: tuple[float, ...] = (0.5, 0.9)
    clips: str = ""
    key: str = ""
    folder: Path = Path("build/load")


class LoadTestError(Exception):
    """The load test cannot run; the message says why in one sentence."""


def served_models(plan: Plan) -> list[dict[str, Any]]:
    """What `GET /models` lists.

    Raises: LoadTestError if the server does not answer.
    """
    request = urllib.request.Request(f"{plan.url}/models", headers=_key_header(plan.key))
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)["models"]
    except OSError as error:
        raise LoadTestError(f"no server answers at {plan.url} ({error}); start one with `make serve`") from error


def load_model(plan: Plan, model: str) -> Iterator[Summary]:
    """Puts one model through the plan; yields each run as it ends."""
    yield _run(plan, model, f"{model} idle", "ClosedLoop", users=1)
    busy = _run(plan, model, f"{model} {plan.callers} callers", "ClosedLoop", users=plan.callers)
    yield busy
    if not busy.answered_per_second:
        return
    for load in plan.loads:
        rate = load * busy.answered_per_second
        yield _run(plan, model, f"{model} at {load:.0%}", "OpenLoop", rate=rate)


def main() -> None:
    """Command line; ends with exit code 1 where a request failed."""
    plan, only = _parse()
    plan.folder.mkdir(parents=True, exist_ok=True)
    try:
        models = [model for model in served_models(plan) if not only or model["name"] in only]
        if not models:
            raise LoadTestError(f"none of the models {', '.join(only)} is served at {plan.url}")
        for model in models:
            print(f"{model['name']}: {model['backbone']}, {model['runtime']} {model['precision']} on {model['device']}")
        summaries = [summary for model in models for summary in load_model(plan, model["name"])]
    except LoadTestError as error:
        _fail(str(error))
    print(f"\n{table(summaries)}\n")
    plot_latencies(summaries, plan.folder / "latencies.png")
    print(f"Every request and a plot of the latencies: {plan.folder}/")
    if any(summary.failed for summary in summaries):
        _fail("some requests failed")


def _run(plan: Plan, model: str, name: str, kind: str, users: int = 1, rate: float = 1.0) -> Summary:
    """One run of locust in a process of its own, for it changes how Python's sockets and threads work."""
    results = plan.folder / f"{name}.jsonl"
    results.unlink(missing_ok=True)
    options = {
        **{"host": plan.url, "model": model, "seconds": plan.seconds, "results": results, "clips": plan.clips},
        **{"users": users, "spawn-rate": users, "rate": rate, "key": plan.key, "stop-timeout": 60},
        **{"loglevel": "ERROR", "exit-code-on-error": 0},
    }
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), kind, "--headless", "--only-summary"]
    command += [f"--{option}={value}" for option, value in options.items()]
    environment = {**os.environ, "PYTHONPATH": str(LOCUSTFILE.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode or not results.exists():
        raise LoadTestError(f"locust failed in run {name!r}: {done.stderr.strip() or done.stdout.strip()}")
    return read_run(results)


def _parse() -> tuple[Plan, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    url = os.environ.get("URL") or "http://localhost:8000"
    parser.add_argument("--url", default=url, help="The server; by default $URL, or localhost's port 8000.")
    parser.add_argument("--model", action="append", default=[], help="Only this model; repeat it for several.")
    parser.add_argument("--seconds", type=float, default=Plan.seconds, help="Length of each run.")
    parser.add_argument("--callers", type=int, default=Plan.callers, help="Callers of the run that finds the capacity.")
    parser.add_argument(
        "--loads", default="0.5,0.9", help="Shares of the capacity at which random arrivals come, with commas."
    )
    parser.add_argument("--clips", default="", help="Sound files with commas; by default ten seconds of noise.")
    parser.add_argument("--key", default="", help="API key, where the server wants one.")
    parser.add_argument("--folder", type=Path, default=Plan.folder, help="Where requests and plots are written.")
    given = parser.parse_args()
    loads = tuple(float(load) for load in given.loads.split(","))
    plan = Plan(given.url.rstrip("/"), given.seconds, given.callers, loads, given.clips, given.key, given.folder)
    return plan, given.model


def _key_header(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _fail(message: str) -> NoReturn:
    print(f"loadtest: {message}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
