"""What executes a batch: the one interface every runtime (torch, onnx, tensorrt, openvino, fake) fulfils."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class DeviceOutOfMemoryError(Exception):
    """The batch does not fit into the device's memory; a smaller one may."""


class DeviceLostError(Exception):
    """The device is lost to this process, as a GPU is after an illegal access; only a new process can go on."""


class ProcessEndedError(Exception):
    """The process that a runtime runs in ended in the middle of a batch, and another has taken its place.

    Which of the batches that it ran was at fault, nobody knows.
    """


@dataclass(frozen=True)
class RuntimeInfo:
    """What runs, in words for `/info`, `/models`, the metrics and every reply."""

    runtime: str
    precision: str
    device: str
    scan: str | None = None


@dataclass(frozen=True)
class BatchResult:
    """One batch's logits and embeddings, and the seconds its two stages took on the device.

    `logits` are float32 (B, C); `embeddings` float32 (B, D) are the features before the head.
    """

    logits: np.ndarray
    embeddings: np.ndarray
    features_seconds: float
    inference_seconds: float


class Runtime(Protocol):
    """One checkpoint, ready on one device; used by at most `most_batches` threads at a time."""

    @property
    def info(self) -> RuntimeInfo: ...

    @property
    def most_batches(self) -> int:
        """How many batches gain from being there side by side, the ready ones included."""
        ...

    @property
    def ready_batches(self) -> int:
        """How many of them only lie ready until a core is free."""
        ...

    @property
    def independent_batches(self) -> int:
        """How many batches at a time wait for nothing of one another's, so that what comes is better shared out."""
        ...

    def run(self, waveforms: np.ndarray, lengths: np.ndarray, batches: int = 1) -> BatchResult:
        """Tags waveforms float32 (B, S), of which the first `lengths` int64 (B,) samples of each row are sound.

        `batches` run on the device meanwhile, this one counted: alone it may have all cores, beside others it has one.

        Raises: DeviceOutOfMemoryError, upon which smaller batches are tried; DeviceLostError, upon which the process
        ends; whatever else may go wrong.
        """
        ...

    def close(self) -> None:
        """Gives back the device's memory; the runtime cannot be used afterwards."""
        ...
