"""From a sound to its tags, offline: the reference that the server must equal.

source → blocks of waveform → windows → log-mel → logits → scores → labels, windows, events
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from model.audio import Channels, open_audio
from model.checkpoint import Checkpoint
from model.events import Event, EventRules, Spans
from model.own_classes import NO_CLASSES, OwnClasses, OwnScores
from model.scores import (
    ChannelTags,
    ScoredLabel,
    TagOptions,
    WindowTags,
    logits_to_scores,
    summarise,
    summarise_channels,
)
from model.windows import LEAST_SECONDS, Window, WindowGrid, cut_channels, cut_windows


@dataclass(frozen=True)
class Tagging:
    """What is in a sound. `scores` (W, C) holds every window's score of every class of the checkpoint.

    `channels` has each channel's top labels where channels were tagged one by one, and is empty where they were mixed.
    """

    model: str
    duration_seconds: float
    sample_rate: int
    labels: tuple[ScoredLabel, ...]
    windows: tuple[WindowTags, ...]
    events: tuple[Event, ...]
    scores: np.ndarray
    channels: tuple[ChannelTags, ...] = ()


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
    channels: Channels = "mixed",
    own_classes: OwnClasses = NO_CLASSES,
) -> Tagging:
    """Tag a file, encoded bytes, or a waveform (S,) that already has the checkpoint's sample rate.

    `window_seconds` may be shorter than the checkpoint's own; `hop_seconds` is the distance between window starts.
    `channels` "split" tags every channel by itself, each with its own timeline. Memory holds `batch_windows` windows,
    however long the sound. `own_classes`, taught to this very network, stand behind its own labels.

    Raises: AudioError (`model/audio.py`); ValueError for a parameter outside its range.
    """
    options = TagOptions(top_k=top_k, threshold=threshold, rollup=rollup, rules=event_rules(checkpoint))
    grid = window_grid(checkpoint, window_seconds, hop_seconds)
    sample_rate = checkpoint.config.features.sample_rate
    spans: list[tuple[float, float]] = []
    logits: list[np.ndarray] = []
    own_scores: list[np.ndarray] = []
    of_channels: list[int | None] = []
    for windows in _batches(_windows(source, grid, sample_rate, max_seconds, channels), batch_windows):
        outputs = window_outputs(checkpoint, windows)
        logits.append(outputs[0])
        own_scores.append(own_classes.scores(outputs[1]))
        spans += [(window.start_sample / sample_rate, window.end_sample / sample_rate) for window in windows]
        of_channels += [window.channel for window in windows]
    if not logits:
        raise ValueError("the waveform is empty: there is nothing to tag")
    own = OwnScores(own_classes, np.concatenate(own_scores))
    return make_tagging(checkpoint, np.concatenate(logits), spans, of_channels, options, own)


def make_tagging(
    checkpoint: Checkpoint,
    logits: np.ndarray,
    spans: Spans,
    channels: Sequence[int | None],
    options: TagOptions,
    own: OwnScores | None = None,
) -> Tagging:
    """Turn the logits (W, C) of windows at `spans`, in seconds, into what is in the sound.

    `channels` says each window's channel, None throughout where channels were mixed; `own` has the scores of classes
    that users have taught.
    """
    scores, known = logits_to_scores(logits, checkpoint.config.activation), checkpoint.labels
    if own is not None:
        scores, known, options = own.join(scores, known, options)
    split = [channel for channel in channels if channel is not None]
    if split:
        labels, tops, windows, events = summarise_channels(scores, spans, split, known, options)
    else:
        (labels, windows, events), tops = summarise(scores, spans, known, options), ()
    rate = checkpoint.config.features.sample_rate
    return Tagging(checkpoint.name, spans[-1][1], rate, labels, windows, events, scores, tops)


def window_grid(checkpoint: Checkpoint, window_seconds: float | None, hop_seconds: float | None) -> WindowGrid:
    """The checkpoint's windows, or shorter ones; a shorter window without a hop gets windows side by side.

    Raises: ValueError if the window is longer than the checkpoint's, the hop exceeds the window, or one is shorter than
    LEAST_SECONDS.
    """
    config = checkpoint.config
    window = config.window_seconds if window_seconds is None else window_seconds
    hop = min(config.hop_seconds, window) if hop_seconds is None else hop_seconds
    if not LEAST_SECONDS <= window <= config.window_seconds:
        raise ValueError(
            f"window_seconds must be at least {LEAST_SECONDS:g} and at most {config.window_seconds:g}, the model's"
            f" window; got {window:g}"
        )
    if not LEAST_SECONDS <= hop <= window:
        raise ValueError(
            f"hop_seconds must be at least {LEAST_SECONDS:g} and at most the window of {window:g} s; got {hop:g}"
        )
    rate = config.features.sample_rate
    return WindowGrid(window_samples=max(1, round(window * rate)), hop_samples=max(1, round(hop * rate)))


def event_rules(checkpoint: Checkpoint) -> EventRules:
    """How the checkpoint's window scores become events: its own threshold per class where it has one."""
    return EventRules(per_class=checkpoint.config.thresholds)


def window_logits(checkpoint: Checkpoint, windows: list[Window]) -> np.ndarray:
    """Logits (B, C) of the windows."""
    return window_outputs(checkpoint, windows)[0]


def window_outputs(checkpoint: Checkpoint, windows: list[Window]) -> tuple[np.ndarray, np.ndarray]:
    """Logits (B, C) of the windows, and the embeddings (B, D) that the network handed to its head on the way there.

    Shorter windows are padded by the front end's own rule.
    """
    lengths = torch.tensor([len(window.waveform) for window in windows])
    waveforms = torch.zeros(len(windows), max(checkpoint.config.window_samples, int(lengths.max())))
    for row, window in zip(waveforms, windows, strict=True):
        row[: len(window.waveform)] = torch.from_numpy(window.waveform)
    device = next(checkpoint.network.parameters()).device
    handed: list[torch.Tensor] = []
    listening = checkpoint.network.head.register_forward_pre_hook(lambda _, inputs: handed.append(inputs[0]))  # type: ignore[operator, union-attr]
    with torch.inference_mode(), listening:
        log_mel = checkpoint.features(waveforms.to(device), lengths.to(device))
        logits = checkpoint.network(log_mel)
    return logits.float().cpu().numpy(), handed[0].float().cpu().numpy()


def _windows(
    source: str | Path | bytes | bytearray | memoryview | BinaryIO | np.ndarray | torch.Tensor,
    grid: WindowGrid,
    sample_rate: int,
    max_seconds: float | None,
    channels: Channels,
) -> Iterator[Window]:
    if isinstance(source, np.ndarray | torch.Tensor):
        waveform = _as_waveform(source)
        yield from cut_windows([waveform], grid) if channels == "mixed" else cut_channels([waveform[:, None]], grid)
        return
    encoded = bytes(source) if isinstance(source, bytearray | memoryview) else source
    with open_audio(encoded, sample_rate, max_seconds, channels) as stream:
        yield from cut_windows(stream, grid) if channels == "mixed" else cut_channels(stream, grid)


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
