"""What the engine refuses or fails with.

EngineError
├── QueueFullError         no room, or the predicted wait would pass the deadline
├── EngineClosedError      draining or stopped
├── WorkerStuckError       a device is lost, or has had one batch for far longer than it should
├── DeadlineError          the deadline passed, or would pass on an idle server too
└── InferenceFailedError   the runtime raised, or answered a wrong shape or a number that is not finite
"""


class EngineError(Exception):
    """Base of what the engine raises or sets on a future."""


class QueueFullError(EngineError):
    """No room; `retry_after_seconds` is when there should be some, `reason` is "full" or "deadline"."""

    def __init__(self, message: str, retry_after_seconds: float, reason: str) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.reason = reason


class EngineClosedError(EngineError):
    """The engine takes no more work."""


class WorkerStuckError(EngineError):
    """The device does not answer; nothing that waits for it will be answered soon."""


class DeadlineError(EngineError):
    """The request's deadline passed before its answer was ready."""


class InferenceFailedError(EngineError):
    """The runtime failed on the batch that held this item; the cause is chained."""
