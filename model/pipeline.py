"""From a sound to its tags, offline: the reference that the server must equal.

source → blocks of waveform → windows → log-mel → logits → scores → labels, windows, events
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from model.audio import open_audio
from model.checkpoint import Checkpoint
from model.scores import Event, EventRules, ScoredLabel, TagOptions, WindowTags, logits_to_scores, summarise
from model.windows import Window, WindowGrid, cut_windows


@dataclass(frozen=True)
class Tagging:
    """What is in a sound. `scores` (W, C) holds every window's score of every class of the checkpoint."""

    model: str
    duration_seconds: float
    sample_rate: int
    labels: tuple[ScoredLabel, ...]
    windows: tuple[WindowTags, ...]
    events: tuple[Event, ...]
    scores: np.ndarray


def tag(
    source: str | Path | bytes | bytearray | memoryview | BinaryIO | np.ndarray | torch.Tensor,
    checkpoint: Checkpoint,
    *,
    top_k: int = 5,
    threshold: float = 0.0,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    rollup: bool = False,
    max_seconds: float | None = None,
    batch_windows: int = 8,
) -> Tagging:
    """Tag a file, encoded bytes, or a waveform (S,) that already has the checkpoint's sample rate.

    `window_seconds` may be shorter than the checkpoint's own; `hop_seconds` is the distance between window starts.
    Memory holds `batch_windows` windows, however long the sound.

    Raises: AudioError (`model/audio.py`); ValueError for a parameter outside its range.
    """
    options = TagOptions(top_k=top_k, threshold=threshold, rollup=rollup, rules=event_rules(checkpoint))
    grid = window_grid(checkpoint, window_seconds, hop_seconds)
    sample_rate = checkpoint.config.features.sample_rate
    spans: list[tuple[float, float]] = []
    logits: list[np.ndarray] = []
    samples = 0
    for windows in _batches(_windows(source, grid, sample_rate, max_seconds), batch_windows):
        logits.append(window_logits(checkpoint, windows))
        spans += [(window.start_sample / sample_rate, window.end_sample / sample_rate) for window in windows]
        samples = windows[-1].end_sample
    if not logits:
        raise ValueError("the waveform is empty: there is nothing to tag")
    scores = logits_to_scores(np.concatenate(logits), checkpoint.config.activation)
    labels, window_tags, events = summarise(scores, spans, checkpoint.labels, options)
    return Tagging(checkpoint.name, samples / sample_rate, sample_rate, labels, window_tags, events, scores)


def window_grid(checkpoint: Checkpoint, window_seconds: float | None, hop_seconds: float | None) -> WindowGrid:
    """The checkpoint's windows, or shorter ones; a shorter window without a hop gets windows side by side.

    Raises: ValueError if the window is longer than the checkpoint's or not positive, or the hop exceeds the window.
    """
    config = checkpoint.config
    window = config.window_seconds if window_seconds is None else window_seconds
    hop = min(config.hop_seconds, window) if hop_seconds is None else hop_seconds
    if not 0 < window <= config.window_seconds:
        raise ValueError(
            f"window_seconds must be above 0 and at most {config.window_seconds:g}, the model's window; got {window:g}"
        )
    if not 0 < hop <= window:
        raise ValueError(f"hop_seconds must be above 0 and at most the window of {window:g} s; got {hop:g}")
    rate = config.features.sample_rate
    return WindowGrid(window_samples=max(1, round(window * rate)), hop_samples=max(1, round(hop * rate)))


def event_rules(checkpoint: Checkpoint) -> EventRules:
    """How the checkpoint's window scores become events: its own threshold per class where it has one."""
    return EventRules(per_class=checkpoint.config.thresholds)


def window_logits(checkpoint: Checkpoint, windows: list[Window]) -> np.ndarray:
    """Logits (B, C) of the windows; shorter ones are padded by the front end's own rule."""
    lengths = torch.tensor([len(window.waveform) for window in windows])
    waveforms = torch.zeros(len(windows), max(checkpoint.config.window_samples, int(lengths.max())))
    for row, window in zip(waveforms, windows, strict=True):
        row[: len(window.waveform)] = torch.from_numpy(window.waveform)
    device = next(checkpoint.network.parameters()).device
    with torch.inference_mode():
        log_mel = checkpoint.features(waveforms.to(device), lengths.to(device))
        return checkpoint.network(log_mel).float().cpu().numpy()


def _windows(
    source: str | Path | bytes | bytearray | memoryview | BinaryIO | np.ndarray | torch.Tensor,
    grid: WindowGrid,
    sample_rate: int,
    max_seconds: float | None,
) -> Iterator[Window]:
    if isinstance(source, np.ndarray | torch.Tensor):
        yield from cut_windows([_as_waveform(source)], grid)
        return
    encoded = bytes(source) if isinstance(source, bytearray | memoryview) else source
    with open_audio(encoded, sample_rate, max_seconds) as stream:
        yield from cut_windows(stream, grid)


def _as_waveform(source: np.ndarray | torch.Tensor) -> np.ndarray:
    """The array as float32 (S,); whole numbers are refused, as their scale is unknown.

    Raises: ValueError for another shape or type.
    """
    array = source.detach().cpu().numpy() if isinstance(source, torch.Tensor) else source
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"a waveform is one row of floating-point samples in [-1, 1], not {array.dtype} of shape {array.shape}"
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def _batches(windows: Iterator[Window], size: int) -> Iterator[list[Window]]:
    while batch := list(islice(windows, size)):
        yield batch
