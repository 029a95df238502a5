"""One live stream: sound comes in over a WebSocket while its tags go out.

frames ─► LiveSound ─► engine.submit ─► results, in order ─► LiveTags ─► messages
  ▲                         │
  └── not read while as many windows wait as `engine.room` lets in, so a fast sender is slowed by its own connection
"""

import asyncio
import time
from contextlib import suppress

import orjson
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect

from model.windows import Window, WindowGrid
from server.disconnect import ClientLeftError
from server.fair_queue import ItemResult, Job
from server.flow import provenance_of, tag_options
from server.live_errors import StreamIdleError, StreamOverrunError, WrongMessageError
from server.live_sound import LiveSound
from server.live_tags import LiveTags, Message
from server.schemas import StreamStart
from server.served_models import ServedModel
from server.service import Service

log = structlog.get_logger()

INLINE_BYTES = 65_536  # smaller frames are converted where they come; a thread would take longer to be called
OVERRUN_SECONDS = 15.0  # longest wait of one window for its place in the queue
TICK_SECONDS = 0.5  # how often a waiting stream looks whether it must end
DRAIN_SHARE = 0.5  # of the drain's time, after which open streams are concluded; the rest is for saying so


class LiveStream:
    """Owns an accepted WebSocket from its first message, already read, to the summary."""

    def __init__(
        self, service: Service, websocket: WebSocket, model: ServedModel, start: StreamStart, grid: WindowGrid
    ) -> None:
        self._service = service
        self._websocket = websocket
        self._model = model
        self._grid = grid
        self._sound = LiveSound(start, model.sample_rate, grid)
        own = service.own_classes.of(model.checkpoint)
        self._tags = LiveTags(model, own, tag_options(model, start))
        self._request_id: str = websocket.scope["hark.request_id"]
        self._queued: asyncio.Queue[tuple[Window, asyncio.Future[ItemResult]] | None] = asyncio.Queue()
        self._outstanding = 0
        self._answered = asyncio.Event()
        self._failure: Exception | None = None
        self.cut_short = False  # by the server's drain

    async def run(self) -> None:
        """Answers until the client ends the sound, or the drain does.

        Raises: StreamError, AudioError, what the engine raises; ClientLeftError when the client closes meanwhile.
        """
        job = self._service.engine.admit(self._model.lane, request_id=self._request_id)
        listening = asyncio.create_task(self._listen(job))
        answering = asyncio.create_task(self._answer())
        try:
            await asyncio.wait((listening, answering), return_when=asyncio.FIRST_EXCEPTION)
            for task in (answering, listening):
                if task.done():
                    task.result()
        finally:
            self._service.engine.release(job)
            for task in (listening, answering):
                task.cancel()
            await asyncio.gather(listening, answering, return_exceptions=True)
            self._forget_queued()
            log.info("stream", windows=self._tags.windows, events=self._tags.events, seconds=self._seconds)

    @property
    def _seconds(self) -> float:
        return round(self._sound.samples / self._model.sample_rate, 3)

    # Sound comes in

    async def _listen(self, job: Job) -> None:
        """Queues windows until the sound ends; what is wrong with it is told behind the answers that it still got."""
        try:
            while (frame := await self._next_frame()) is not None:
                await self._queue_frame(job, frame)
            for window in self._sound.finish():
                await self._submit(job, window)
        except ClientLeftError:
            raise
        except Exception as error:
            self._failure = error
        await self._queued.put(None)

    async def _next_frame(self) -> bytes | None:
        """The next binary message; None where the client, or the drain, ends the sound."""
        message = await self._receive()
        if message is None:
            return None
        if message["type"] == "websocket.disconnect":
            raise ClientLeftError("the client closed the stream before its end")
        if (frame := message.get("bytes")) is not None:
            return bytes(frame)
        if is_end(message.get("text") or ""):
            return None
        raise WrongMessageError('after the first message, send binary ones with sound, or the text {"end": true}')

    async def _receive(self) -> Message | None:
        """The next message of any kind; None where the drain ends the stream.

        Raises: StreamIdleError.
        """
        idle_seconds = self._service.settings.stream_idle_seconds
        idle_at = time.monotonic() + idle_seconds
        while not self._drain_is_due():
            with suppress(TimeoutError):
                async with asyncio.timeout(min(TICK_SECONDS, max(0.0, idle_at - time.monotonic()))):
                    return dict(await self._websocket.receive())
            if time.monotonic() >= idle_at:
                raise StreamIdleError(f"nothing came for {idle_seconds:g} seconds; connect again when there is sound")
        self.cut_short = True
        return None

    def _drain_is_due(self) -> bool:
        service = self._service
        left = DRAIN_SHARE * service.settings.drain_seconds
        return service.state == "draining" and service.drain_seconds_left() <= left

    async def _queue_frame(self, job: Job, frame: bytes) -> None:
        take, inline = self._sound.take, len(frame) <= INLINE_BYTES
        for part in self._sound.parts(frame):
            waveform = take(part) if inline else await self._service.run_in_thread(take, part)
            for window in self._sound.cut(waveform):
                await self._submit(job, window)

    async def _submit(self, job: Job, window: Window) -> None:
        try:
            async with asyncio.timeout(OVERRUN_SECONDS):
                while not self._service.engine.room(self._outstanding):
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError as error:
            raise StreamOverrunError(
                "the sound comes faster than it is tagged or its answers are read; send it in real time, raise"
                " hop_seconds, or try again later"
            ) from error
        future = asyncio.wrap_future(self._service.engine.submit(job, window.waveform))
        self._outstanding += 1
        self._queued.put_nowait((window, future))

    # Tags go out

    async def _answer(self) -> None:
        rate = self._model.sample_rate
        await self._send(self._ready())
        while (queued := await self._queued.get()) is not None:
            window, future = queued
            result = await future
            span = (window.start_sample / rate, window.end_sample / rate)
            for message in await self._service.run_in_thread(self._tags.add, *span, result.logits, result.embedding):
                await self._send(message)
            self._outstanding -= 1
            self._answered.set()
        if self._failure is not None:
            raise self._failure
        for message in self._tags.finish():
            if message["type"] == "summary":
                message |= {"provenance": provenance_of(self._model), "request_id": self._request_id}
            await self._send(message)

    def _ready(self) -> Message:
        rate = self._model.sample_rate
        return {
            "type": "ready",
            "model": self._model.name,
            "window_seconds": self._grid.window_samples / rate,
            "hop_seconds": self._grid.hop_samples / rate,
            "request_id": self._request_id,
        }

    async def _send(self, message: Message) -> None:
        await send_message(self._websocket, message, self._service.settings.stream_idle_seconds)

    def _forget_queued(self) -> None:
        while not self._queued.empty():
            queued = self._queued.get_nowait()
            if queued is not None and not queued[1].cancel() and not queued[1].cancelled():
                queued[1].exception()  # looked at, so that asyncio does not complain


def is_end(text: str) -> bool:
    """Whether a text message is the one that ends the sound."""
    try:
        return bool(orjson.loads(text) == {"end": True})
    except orjson.JSONDecodeError:
        return False


async def send_message(websocket: WebSocket, message: Message, seconds: float) -> None:
    """Sends one message as JSON text.

    Raises: ClientLeftError where the client has gone, or takes nothing for so long.
    """
    try:
        async with asyncio.timeout(seconds):
            await websocket.send_text(orjson.dumps(message).decode())
    except (WebSocketDisconnect, RuntimeError, OSError, TimeoutError) as error:
        raise ClientLeftError("the client closed the stream, or does not read it") from error
