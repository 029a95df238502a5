"""Runs the server as a process: ready on its own, drained on the first signal, gone on the second."""

import gc
import os
from types import FrameType

import structlog
import uvicorn

from server.app import create_app
from server.console import print_error
from server.http_reading import HttpReader
from server.live_sound import MAX_FRAME_BYTES
from server.logs import configure_logging
from server.service import Service
from server.settings import Settings
from server.settings_rules import doubts
from server.tracing import TracingError

log = structlog.get_logger()

# Until the garbage collector looks. Requests leave it next to nothing, and nobody is answered meanwhile: under load it
# looked every 0.7 s, for 5 to 28 ms.
NEW_OBJECTS = 50_000


def serve(settings: Settings) -> int:
    """Serves until a signal ends it; the exit code: 0 after a drained end, 1 for a failed start or a lost device."""
    configure_logging(settings.log_level, settings.log_format)
    for doubt in doubts(settings):
        log.warning("settings", doubt=doubt)
    if settings.separate_process is None:
        settings = settings.model_copy(update={"separate_process": os.name == "posix"})
    try:
        app = create_app(settings)
    except TracingError as error:
        print_error(str(error))
        return 1
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=HttpReader,  # type: ignore[arg-type]  # a protocol all the same
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,  # comes after our own drain, and then cancels
        ws_max_size=2 * MAX_FRAME_BYTES,  # our own limit comes first, and says so
        ws_ping_timeout=None,  # a pong waits behind sound that is not read yet; silence ends a stream anyway
        ws_per_message_deflate=False,  # sound hardly shrinks
    )
    server = DrainingServer(config, app.state.service)
    gc.freeze()  # modules stay; once ready, only what was loaded since is looked through
    server.run()
    return 1 if server.service.state == "failed" or not server.started else 0


class DrainingServer(uvicorn.Server):
    """Turns unready on SIGTERM or SIGINT, keeps answering until accepted requests are done, then stops."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service
        self._signalled = False
        service.on_failure = self._give_up
        service.on_ready = self._begin

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second: end the process at once."""
        if self._signalled:
            os._exit(128 + sig)
        self._signalled = True

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; True ends the main loop."""
        if self.service.state != "failed" and (reason := self.service.engine.lost_device):
            self.service.fail(reason)
        if not self._signalled:
            return await super().on_tick(counter)
        self.service.begin_drain()
        idle = not self.server_state.tasks
        if idle or not self.service.drain_seconds_left():
            self.should_exit = True
        return await super().on_tick(counter)

    def _give_up(self) -> None:
        print_error(self.service.failure)
        self.should_exit = True

    def _begin(self) -> None:
        """What is loaded by now stays, so the garbage collector need not look through it while all requests wait."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(NEW_OBJECTS)
        self._say_address()

    def _say_address(self) -> None:
        sockets = [listener for server in self.servers for listener in server.sockets]
        host, port = sockets[0].getsockname()[:2]
        shown = "localhost" if host in ("0.0.0.0", "127.0.0.1", "::", "::1") else host
        print(f"Hark is ready: http://{shown}:{port}/", flush=True)
