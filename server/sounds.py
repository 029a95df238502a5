"""Sounds with their windows' logits and embeddings: what `/embed` and the Open Inference Protocol answer from."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import numpy as np
from starlette.requests import Request

from model.audio import AudioError, AudioTooLongError
from model.own_classes import OwnScores
from server.disconnect import unless_disconnected
from server.tagging import HeardWindow, Timings, UploadTagger


@dataclass(frozen=True)
class HeardSound:
    """One sound's windows: their places in seconds, logits float32 (W, C) and embeddings float32 (W, D).

    `own` holds the scores that the classes which users have taught give the windows.
    """

    spans: tuple[tuple[float, float], ...]
    logits: np.ndarray
    embeddings: np.ndarray
    own: OwnScores
    timings: Timings

    @property
    def duration_seconds(self) -> float:
        return self.spans[-1][1]

    def mean_embedding(self) -> np.ndarray:
        """The sound's own embedding float32 (D,): the mean of its windows'."""
        return self.embeddings.mean(axis=0, dtype=np.float64).astype(np.float32)


@dataclass
class Together:
    """How far sounds that are heard side by side have come, against what they may last together."""

    max_seconds: float
    reached: dict[int, float] = field(default_factory=dict)

    def reach(self, index: int, seconds: float) -> None:
        """Notes how far one sound has come; raises AudioTooLongError as soon as it is too much."""
        self.reached[index] = seconds
        if (total := sum(self.reached.values())) > self.max_seconds:
            raise AudioTooLongError(
                f"the sounds last {total:.10g} seconds or more together, the limit is {self.max_seconds:.10g} seconds;"
                " send fewer at once"
            )


async def hear_sounds(request: Request, taggers: Sequence[UploadTagger], max_seconds: float) -> list[HeardSound]:
    """Runs every window of every sound; together the sounds may last `max_seconds`. A caller who leaves ends the work.

    Each sound takes its turns in the queue by itself. Either all are let in, or none.

    Raises: everything that `server/errors.py` has a row for; a broken sound is named by its place where there are more.
    """
    return await unless_disconnected(request, _hear_all(taggers, max_seconds))


async def _hear_all(taggers: Sequence[UploadTagger], max_seconds: float) -> list[HeardSound]:
    together = Together(max_seconds)
    async with AsyncExitStack() as admitted:
        for tagger in taggers:
            await admitted.enter_async_context(tagger)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_hear(*numbered, len(taggers), together)) for numbered in enumerate(taggers)]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
    return [task.result() for task in tasks]


async def _hear(index: int, tagger: UploadTagger, count: int, together: Together) -> HeardSound:
    windows = []
    async for window in _windows(index, tagger, count):
        together.reach(index, window.end_seconds)
        # Copies: a row would keep the whole of its batch, other callers' windows included.
        windows.append(replace(window, logits=window.logits.copy(), embedding=window.embedding.copy()))
    return HeardSound(
        tuple((window.start_seconds, window.end_seconds) for window in windows),
        np.stack([window.logits for window in windows]),
        np.stack([window.embedding for window in windows]),
        OwnScores(tagger.own, np.stack([window.own_scores for window in windows])),
        tagger.timings,
    )


async def _windows(index: int, tagger: UploadTagger, count: int) -> AsyncIterator[HeardWindow]:
    """The sound's windows; a sound among others is named where it is broken."""
    try:
        async for window in tagger.windows():
            yield window
    except AudioError as error:
        if count > 1:
            error.args = (f"sound {index} of {count} (counted from 0): {error}",)
        raise


def stage_seconds(sounds: Sequence[HeardSound], output_seconds: float) -> dict[str, float]:
    """Where a request's time went, in Triton's words; its sounds ran side by side, so each stage's longest counts."""
    timings = [sound.timings for sound in sounds]
    return {
        "queue": max(timing.queue for timing in timings),
        "compute_input": max(timing.decode + timing.features for timing in timings),
        "compute_infer": max(timing.inference for timing in timings),
        "compute_output": output_seconds,
    }


def longest_times(sounds: Sequence[HeardSound]) -> dict[str, float]:
    """The milliseconds of each stage, of the sound that took longest in it."""
    every = [sound.timings.milliseconds() for sound in sounds]
    return {stage: max(times[stage] for times in every) for stage in every[0]}
