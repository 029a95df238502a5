"""Uploaded clips to embeddings, for teaching a class: decoded on the decode threads, run by the engine like any window.

They go into the queue with priority "batch", so that teaching never delays tagging.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from model.audio import AudioError
from model.background import background_clips, background_waveforms, teaching_windows
from model.teaching import Clip
from server.fair_queue import ItemResult, Job
from server.own_classes import GIVEN
from server.quota import current_caller
from server.served_models import ServedModel
from server.service import Service


@dataclass(frozen=True)
class ClipFile:
    """An uploaded clip, and what to call it in an error."""

    name: str
    file: BinaryIO


class ClipReader:
    """Turns one request's clips into embeddings of one model."""

    def __init__(self, service: Service, model: ServedModel, request_id: str) -> None:
        self._service = service
        self._model = model
        self._request_id = request_id

    async def read(self, files: Sequence[ClipFile], negatives: Sequence[ClipFile]) -> tuple[list[Clip], list[Clip]]:
        """The clips of the class, and those without it: the given ones and Hark's own.

        Raises: AudioError naming the clip; what the engine raises.
        """
        job = self._service.engine.admit(self._model.lane, None, self._request_id, "batch")
        try:
            positives = [Clip(await self._embed(job, await self._decode(clip))) for clip in files]
            given = [Clip(await self._embed(job, await self._decode(clip)), GIVEN) for clip in negatives]
            return positives, [*given, *await self._background(job)]
        finally:
            self._service.engine.release(job)

    async def _decode(self, clip: ClipFile) -> list[np.ndarray]:
        rate, samples = self._model.sample_rate, self._model.lane.window_samples
        try:
            return await self._service.run_in_thread(teaching_windows, clip.file, rate, samples)
        except AudioError as error:
            raise type(error)(f"{clip.name}: {error}") from error

    async def _background(self, job: Job) -> list[Clip]:
        """Hark's own negatives; embedded once per network, as they are always the same."""
        known, key = self._service.own_classes.background, self._model.checkpoint.weights_sha256
        if key not in known:
            rate, samples = self._model.sample_rate, self._model.lane.window_samples
            waveforms = await self._service.run_in_thread(background_waveforms, rate, samples)
            caller = current_caller.set("")  # this sound is ours, so nobody's quota pays for it
            try:
                embeddings = await self._embed(job, waveforms)
            finally:
                current_caller.reset(caller)
            known[key] = background_clips(embeddings)
        return known[key]

    async def _embed(self, job: Job, waveforms: Sequence[np.ndarray]) -> np.ndarray:
        """Windows' waveforms to embeddings (W, D), with only as many in the queue as the engine has room for."""
        engine = self._service.engine
        pending: deque[asyncio.Future[ItemResult]] = deque()
        embeddings: list[np.ndarray] = []
        for waveform in waveforms:
            while pending and not engine.room(len(pending)):
                embeddings.append((await pending.popleft()).embedding.copy())
            pending.append(asyncio.wrap_future(engine.submit(job, waveform)))
        embeddings += [result.embedding.copy() for result in await asyncio.gather(*pending)]
        return np.stack(embeddings)
