"""Receives a request's audio into a spooled temporary file, counting bytes, never trusting the declared type.

UploadError (ValueError)
├── UploadTooLargeError    more bytes than the limit
├── EmptyUploadError       no bytes at all
├── UploadStalledError     nothing came for too long
└── BadMultipartError      malformed multipart, or no file in it
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from email.message import Message
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast
from urllib.parse import unquote_to_bytes

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

MULTIPART_OVERHEAD_BYTES = 64 * 1024  # boundaries, part headers and the small fields around the file
MAX_FIELDS = 32
ENCODED_FILENAME = re.compile(rb"filename\*=utf-8'[^']*'([^;\s]*)", re.IGNORECASE)
TAIL_BYTES = 1024  # a boundary has at most 70 characters; some clients write a line behind it


class UploadError(ValueError):
    """Base of everything that is wrong with a request's body before it is decoded."""


class UploadTooLargeError(UploadError):
    """The body is larger than the limit."""


class EmptyUploadError(UploadError):
    """The body, or the file in it, has no bytes."""


class UploadStalledError(UploadError):
    """The body stopped coming before its end."""


class BadMultipartError(UploadError):
    """The multipart body is malformed or has no file."""


@dataclass(frozen=True)
class UploadLimits:
    """What a body may cost."""

    max_bytes: int
    memory_bytes: int
    idle_seconds: float


@dataclass(frozen=True)
class Upload:
    """The received sound as a seekable file at its beginning, its name, and the form's other fields; `close` it."""

    file: BinaryIO
    size_bytes: int
    filename: str = ""
    fields: dict[str, str] = field(default_factory=dict)

    def close(self) -> None:
        """Deletes the temporary file."""
        self.file.close()


def media_type(request: Request) -> str:
    """The declared type without its parameters, in lower case; "text/plain" when none is declared."""
    return _content_type(request).get_content_type()


def declared_bytes(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The body's length, where a head says it; names of headers in lower case."""
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None


async def receive_upload(request: Request, limits: UploadLimits) -> Upload:
    """Reads the field `file` of a multipart body, or any other body as the sound itself.

    Raises: UploadError (see the tree above); ClientDisconnect when the caller leaves meanwhile.
    """
    if media_type(request) == "multipart/form-data":
        upload = await _receive_multipart(request, limits)
    else:
        upload = await _receive_raw(request, limits)
    if upload.size_bytes == 0:
        upload.close()
        raise EmptyUploadError("the upload is empty; send the bytes of an audio file, as the body or as field 'file'")
    upload.file.seek(0)
    return upload


async def receive_bytes(request: Request, limits: UploadLimits) -> bytes:
    """Reads a small body whole; for JSON. Raises as `receive_upload`."""
    chunks = [chunk async for chunk in _counted(request, limits.max_bytes, limits.idle_seconds)]
    return b"".join(chunks)


async def _receive_raw(request: Request, limits: UploadLimits) -> Upload:
    file = SpooledTemporaryFile(max_size=limits.memory_bytes)  # noqa: SIM115 (the upload's owner closes it)
    size = 0
    try:
        async for chunk in _counted(request, limits.max_bytes, limits.idle_seconds):
            size += len(chunk)
            if size > limits.memory_bytes:
                await run_in_threadpool(file.write, chunk)
            else:
                file.write(chunk)
    except BaseException:
        file.close()
        raise
    return Upload(cast(BinaryIO, file), size)


async def _receive_multipart(request: Request, limits: UploadLimits) -> Upload:
    form = await _parse_form(request, limits, max_files=1)
    file = form.get("file")
    if not isinstance(file, UploadFile):
        await form.close()
        raise BadMultipartError(_no_file_message(form))
    size = file.size or 0
    if size > limits.max_bytes:
        await form.close()
        raise _too_large(size, limits.max_bytes)
    fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    return Upload(file.file, size, file.filename or "", fields)


async def receive_files(request: Request, limits: UploadLimits, max_files: int) -> FormData:
    """Reads a multipart body of several files, together within the limits; `close` the form.

    Raises: as `receive_upload`; BadMultipartError for another kind of body and for more files.
    """
    if media_type(request) != "multipart/form-data":
        raise BadMultipartError("send the files as a multipart form, with curl: -F file=@first.wav -F file=@second.wav")
    return await _parse_form(request, limits, max_files)


async def _parse_form(request: Request, limits: UploadLimits, max_files: int) -> FormData:
    body = _counted(request, limits.max_bytes, limits.idle_seconds, MULTIPART_OVERHEAD_BYTES)
    chunks = _closed(body, _content_type(request))
    parser = _FormParser(request.headers, chunks, max_files=max_files, max_fields=MAX_FIELDS)
    parser.spool_max_size = limits.memory_bytes
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise BadMultipartError(f"the multipart body cannot be read: {error.message}") from error


class _FormParser(MultiPartParser):
    """Takes a part for a file also where its name comes only as `filename*`, which some clients send."""

    def on_headers_finished(self) -> None:
        part = self._current_part
        if part.content_disposition is not None:
            part.content_disposition = ENCODED_FILENAME.sub(_plain_filename, part.content_disposition)
        super().on_headers_finished()


def _plain_filename(encoded: re.Match[bytes]) -> bytes:
    return b'filename="' + re.sub(rb'[\x00-\x1f"\\]', b"_", unquote_to_bytes(encoded[1])) + b'"'


def _content_type(request: Request) -> Message:
    message = Message()
    message["Content-Type"] = request.headers.get("content-type", "")
    return message


async def _closed(chunks: AsyncGenerator[bytes, None], content_type: Message) -> AsyncGenerator[bytes, None]:
    """Passes chunks on and raises if the closing boundary never came; the parser would take half a file for a whole."""
    closing = b"--" + str(content_type.get_param("boundary", "")).encode() + b"--"
    tail = b""
    async for chunk in chunks:
        tail = chunk[-TAIL_BYTES:] if len(chunk) >= TAIL_BYTES else (tail + chunk)[-TAIL_BYTES:]
        yield chunk
    if closing not in tail:
        raise BadMultipartError("the multipart body ends before its closing boundary; send it again, whole")


def _no_file_message(form: FormData) -> str:
    if "file" in form:
        return "the multipart field 'file' has no filename; send it as a file, with curl: -F file=@clip.wav"
    found = ", ".join(repr(name) for name in form) or "none"
    return f"the multipart body has no field 'file' (fields found: {found}); with curl: -F file=@clip.wav"


async def _counted(
    request: Request, max_bytes: int, idle_seconds: float, overhead_bytes: int = 0
) -> AsyncGenerator[bytes, None]:
    """The body's chunks, refused as soon as they, or the declared length, pass the limit and the overhead."""
    declared = declared_bytes(request.scope["headers"])
    if declared is not None and declared > max_bytes + overhead_bytes:
        raise _too_large(declared, max_bytes)
    size = 0
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                chunk = await anext(chunks, b"")
        except TimeoutError as error:
            raise UploadStalledError(
                f"the upload paused for more than {idle_seconds:g} seconds; send it again"
            ) from error
        if not chunk:
            return
        size += len(chunk)
        if size > max_bytes + overhead_bytes:
            raise _too_large(size, max_bytes)
        yield chunk


def _too_large(size: int, max_bytes: int) -> UploadTooLargeError:
    return UploadTooLargeError(
        f"the upload has {size} bytes or more, the limit is {max_bytes} bytes; send shorter audio"
    )
