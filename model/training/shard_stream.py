"""Shards read in sequence with webdataset, for disks and networks on which jumping about is slow.

    shards, shuffled → this rank's → this worker's → clips → copies of the rare → shuffle buffer → waveforms → batches

Every pass over the shards shuffles them anew. A rank that runs out begins its next pass, so all ranks give the same
number of batches. The order follows from seed, epoch, ranks and workers alone.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import torch
import webdataset
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from model.training.bad_files import BadFiles
from model.training.clips import Clip, ClipError, ManifestError, decode_clip
from model.training.shards import shards_of

IDLE_PASSES = 100
"""So many passes without a clip mean that the weights of a worker's clips are 0, or as good as."""

Batch = tuple[list[int], list[Tensor]]
Failure = tuple[Path, str]


@dataclass(frozen=True)
class StreamOrder:
    """What the order of a stream follows from; `buffer` is how many encoded clips each worker shuffles among."""

    seed: int
    epoch: int
    rank: int = 0
    ranks: int = 1
    buffer: int = 1000


class ShardStream:
    """Batches of waveforms from the shards that hold `clips`; other clips in those shards are passed over."""

    def __init__(self, clips: list[Clip], sample_rate: int, bad: BadFiles) -> None:
        self.clips = clips
        self.sample_rate = sample_rate
        self.bad = bad
        self._shards = sorted(shards_of(clips))

    def batches(
        self, order: StreamOrder, batch: int, steps: int, weights: Tensor | None = None, workers: int = 0
    ) -> Iterator[Batch]:
        """Exactly `steps` batches of (indices into `clips`, waveforms (S,)), decoded in `workers` processes.

        With `weights` (clips,) a clip comes back as often, in the mean, as weighted draws would draw it.

        Raises: ManifestError if there are fewer shards than ranks times workers, if a whole pass gives no clip, or for
        a bad file that is to stop the run.
        """
        readers = order.ranks * max(workers, 1)
        if len(self._shards) < readers:
            raise ManifestError(
                f"{len(self._shards)} shards cannot be shared by {order.ranks} ranks of {max(workers, 1)} workers; "
                "use fewer, or pack smaller shards"
            )
        part = _StreamPart(self, order, batch, None if weights is None else weights / weights.mean())
        own = torch.Generator()  # a loader draws a seed for its workers, which must not come from the network's
        loader = DataLoader(part, batch_size=None, num_workers=workers, generator=own)
        for _, (made, failures) in zip(range(steps), loader, strict=False):
            for file, reason in failures:
                self.bad.add(file, reason)
            if made is None:
                raise ManifestError("the shards of one worker gave no clip to train on")
            yield made


class _StreamPart(IterableDataset[tuple[Batch | None, list[Failure]]]):
    """What one worker of one rank reads: endless batches, each with the failures that came before it."""

    def __init__(self, stream: ShardStream, order: StreamOrder, batch: int, copies: Tensor | None) -> None:
        self.clips = stream.clips
        self.sample_rate = stream.sample_rate
        self.shards = stream._shards
        self.order = order
        self.batch = batch
        self.copies = None if copies is None else copies.double().numpy()

    def __iter__(self) -> Iterator[tuple[Batch | None, list[Failure]]]:
        failures: list[Failure] = []
        chosen: list[int] = []
        waveforms: list[Tensor] = []
        for index, waveform in self._endless(failures):
            chosen.append(index)
            waveforms.append(waveform)
            if len(chosen) == self.batch:
                yield (chosen, waveforms), list(failures)
                chosen, waveforms = [], []
                failures.clear()
        yield None, failures

    def _endless(self, failures: list[Failure]) -> Iterator[tuple[int, Tensor]]:
        """(index, waveform), pass after pass; ends when a pass gave only failures, or chance left out all for long."""
        idle = 0
        for number in count():
            before, given = len(failures), 0
            for index, waveform in self._one_pass(number, failures):
                given += 1
                yield index, waveform
            idle = 0 if given else idle + 1
            if idle == IDLE_PASSES or (idle and len(failures) > before):
                return

    def _one_pass(self, number: int, failures: list[Failure]) -> Iterator[tuple[int, Tensor]]:
        order = self.order
        shards = list(self.shards)
        Random(f"{order.seed} {order.epoch} {number}").shuffle(shards)  # alike in every rank and worker
        mine = list(webdataset.split_by_worker(iter(shards[order.rank :: order.ranks])))
        random = Random(f"{order.seed} {order.epoch} {number} {mine[0].name}")
        encoded = self._copied(self._read(mine, failures), random)
        for index, sound in webdataset.shuffle(order.buffer, initial=order.buffer, rng=random)(encoded):
            try:
                waveform = decode_clip(self.clips[index], sound, self.sample_rate)
            except ClipError as error:
                failures.append((error.file, str(error)))
            else:
                yield index, torch.from_numpy(waveform)

    def _read(self, shards: list[Path], failures: list[Failure]) -> Iterator[tuple[int, bytes]]:
        """(index, encoded sound) of every wanted clip; those that a damaged shard no longer gives are failures."""
        mine = set(shards)
        wanted = {
            (clip.stored.shard, clip.stored.key): index
            for index, clip in enumerate(self.clips)
            if clip.stored is not None and clip.stored.shard in mine
        }
        for sample in _samples(shards):
            index = wanted.pop((Path(sample["__url__"]), sample["__key__"]), None)
            sounds = [value for name, value in sample.items() if not name.startswith("__") and name != "json"]
            if index is not None and sounds:
                yield index, sounds[0]
        failures += [
            (self.clips[index].file, f"its shard {shard} is lost or damaged") for (shard, _), index in wanted.items()
        ]

    def _copied(self, sounds: Iterable[tuple[int, bytes]], random: Random) -> Iterator[tuple[int, bytes]]:
        """Each sound as often as its weight says: the whole part always, the rest by chance."""
        for index, sound in sounds:
            expected = 1.0 if self.copies is None else float(self.copies[index])
            for _ in range(math.floor(expected + random.random())):
                yield index, sound


def _samples(shards: list[Path]) -> Iterator[dict[str, Any]]:
    """What webdataset finds in the tars; a damaged one ends early, which `_read` sees."""
    files = webdataset.tariterators.tar_file_expander(_opened(shards), handler=webdataset.ignore_and_continue)
    return webdataset.tariterators.group_by_keys(files, handler=webdataset.ignore_and_continue)


def _opened(shards: list[Path]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        with suppress(OSError), shard.open("rb") as stream:  # `_read` sees what a lost shard did not give
            yield {"url": str(shard), "stream": stream}
