"""What each caller may use in a minute: a token bucket of requests and one of audio per caller, off by default.

A request is counted at the door. How long its sound is shows only while it is cut into windows, so audio is charged as
windows are queued, overlaps included; the balance may go below nothing, and then that caller waits till it is paid off.
"""

import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field

CALLERS_KEPT = 10_000  # callers without a key go by their address, and addresses cost an attacker little

current_caller: ContextVar[str] = ContextVar("current_caller", default="")
"""Whose work this is: set where a request is let in, and inherited by every task that the request starts."""


class RateLimitedError(Exception):
    """This caller has used up its quota; `retry_after_seconds` says when to come back."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


@dataclass
class TokenBucket:
    """Holds a minute's worth at most, fills steadily, and may be overdrawn by `charge`."""

    per_minute: float
    now: float
    level: float = field(init=False)

    def __post_init__(self) -> None:
        self.level = self.per_minute

    def fill(self, now: float) -> None:
        """Adds what has come since the last time."""
        self.level = min(self.per_minute, self.level + (now - self.now) * self.per_minute / 60)
        self.now = now

    def seconds_until(self, level: float) -> float:
        """How long until so much is there."""
        return max(0.0, (level - self.level) * 60 / self.per_minute)


class Quota:
    """The buckets of all callers; a limit of None is none. Used on the event loop only."""

    def __init__(
        self,
        requests_per_minute: float | None,
        audio_seconds_per_minute: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = {"requests": requests_per_minute, "audio": audio_seconds_per_minute}
        self._clock = clock
        self._buckets: dict[str, dict[str, TokenBucket]] = {}

    def enter(self, caller: str) -> None:
        """Counts one request.

        Raises: RateLimitedError where a bucket has too little; then nothing is counted.
        """
        buckets = self._buckets_of(caller)
        if (requests := buckets.get("requests")) is not None:
            need = min(1.0, requests.per_minute)  # less than one a minute: a full bucket lets one in
            _refuse_below(requests, need, f"{requests.per_minute:g} requests a minute")
        if (audio := buckets.get("audio")) is not None:
            # One second's worth of the quota at least, so that a spent bucket does not admit a caller on a trickle.
            _refuse_below(audio, audio.per_minute / 60, f"{audio.per_minute:g} seconds of audio a minute")
        if requests is not None:
            requests.level -= 1

    def charge(self, caller: str, audio_seconds: float) -> None:
        """Takes sound from the caller's bucket, below nothing if need be."""
        if (audio := self._buckets_of(caller).get("audio")) is not None:
            audio.level -= audio_seconds

    def _buckets_of(self, caller: str) -> dict[str, TokenBucket]:
        now = self._clock()
        buckets = self._buckets.pop(caller, None)
        if buckets is None:
            limits = {kind: limit for kind, limit in self._limits.items() if limit is not None}
            if not limits:
                return {}
            buckets = {kind: TokenBucket(limit, now) for kind, limit in limits.items()}
            if len(self._buckets) >= CALLERS_KEPT:
                del self._buckets[next(iter(self._buckets))]  # the one not seen for longest
        self._buckets[caller] = buckets
        for bucket in buckets.values():
            bucket.fill(now)
        return buckets


def _refuse_below(bucket: TokenBucket, need: float, quota: str) -> None:
    wait = bucket.seconds_until(need)
    if wait > 0:
        raise RateLimitedError(f"your quota of {quota} is used up; come back in {math.ceil(wait)} s", wait)
