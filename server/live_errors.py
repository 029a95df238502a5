"""What can be wrong with a live stream; `close_code` is what its WebSocket closes with (RFC 6455, 7.4.1).

StreamError (ValueError)
├── WrongMessageError     1003  text where sound was due, or the other way round
├── BadFrameError         1007  bytes that are no whole samples
├── FrameTooLargeError    1009  more bytes in one message than are taken at once
├── StreamIdleError       1008  nothing came for too long
└── StreamOverrunError    1013  the device does not keep up with this stream
"""


class StreamError(ValueError):
    """Base of what is wrong with a live stream itself."""

    close_code = 1007


class WrongMessageError(StreamError):
    """A message of another kind than the one that was due."""

    close_code = 1003


class BadFrameError(StreamError):
    """A binary message that does not hold whole samples."""

    close_code = 1007


class FrameTooLargeError(StreamError):
    """A binary message of more bytes than are taken at once."""

    close_code = 1009


class StreamIdleError(StreamError):
    """Nothing came for longer than a stream may pause."""

    close_code = 1008


class StreamOverrunError(StreamError):
    """A window waited too long for its place in the queue; `retry_after_seconds` says when to try again."""

    close_code = 1013
    retry_after_seconds = 5.0
