"""Clips to augmented batches: the order of an epoch, its random numbers, and each process's share of every step.

    one epoch of a run      step 0                      step 1
    batch                  [ micro 0 | micro 1 ]       [ micro 0 | micro 1 ]
    with one process         first     second            first     second       gradients are accumulated
    with two                 rank 0    rank 1            rank 0    rank 1       gradients are averaged between them

A step of a single micro-batch draws from one generator that lasts the epoch; else each micro-batch has its own, so that
who computes it does not matter.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Generator, Tensor

from model.features import LogMel
from model.labels import LabelSet
from model.training import augment
from model.training.clips import Clip
from model.training.data import targets
from model.training.losses import Batch
from model.training.recipe import TrainingRecipe
from model.training.sampling import draw, sampling_weights
from model.training.waveforms import FileWaveforms, read_batches


@dataclass(frozen=True)
class Sounds:
    """Clips with their waveforms (S,), in memory or decoded when asked for."""

    clips: list[Clip]
    waveforms: Sequence[Tensor]
    labels: LabelSet

    @property
    def targets(self) -> Tensor:
        """Multi-hot (clips, C) of all clips."""
        return targets(self.clips, self.labels)


@dataclass(frozen=True)
class Share:
    """One process among `processes`, and the device it computes on."""

    rank: int = 0
    processes: int = 1
    device: torch.device | str = "cpu"


class EpochRandom:
    """The random numbers of one epoch."""

    def __init__(self, seed: int, epoch: int, micros: int) -> None:
        self._seed, self._micros = seed * 100_003 + epoch, micros
        self.order = Generator().manual_seed(self._seed)
        torch.manual_seed(self._seed)  # dropout

    def of(self, step: int, micro: int) -> Generator:
        """The generator of one micro-batch; where it is its own, dropout starts anew with it."""
        if self._micros == 1:
            return self.order
        seed = (self._seed * 1_000_003 + step * 1009 + micro) % 2**63
        torch.manual_seed(seed)
        return Generator().manual_seed(seed)

    def partners(self, clips: int) -> Tensor:
        """A mix-up partner for each place of the epoch, drawn from all clips alike."""
        return torch.randint(clips, (clips,), generator=Generator().manual_seed(self._seed + 1_000_000_007))

    def state(self) -> list[Tensor]:
        """Where the random numbers stand, for `restore`."""
        cuda = [torch.cuda.get_rng_state()] if torch.cuda.is_available() else []
        return [self.order.get_state(), torch.get_rng_state(), *cuda]

    def restore(self, state: list[Tensor]) -> None:
        """Go on where `state` was taken."""
        self.order.set_state(state[0])
        torch.set_rng_state(state[1])
        if len(state) > 2 and torch.cuda.is_available():
            torch.cuda.set_rng_state(state[2])


Finish = Callable[[Batch, Generator], Batch]


class Feed:
    """The batches of a run for one process; `finish` adds what an objective needs beside the sound."""

    def __init__(
        self, recipe: TrainingRecipe, features: LogMel, sounds: Sounds, share: Share, finish: Finish | None = None
    ) -> None:
        self._recipe, self._features, self._sounds, self._share = recipe, features, sounds, share
        self._finish = finish
        self.size = recipe.micro_batch or recipe.batch // share.processes
        self.micros = recipe.batch // self.size
        self.mine = range(share.rank, self.micros, share.processes)
        self.steps = len(sounds.clips) // recipe.batch
        self._weights = sampling_weights(sounds.clips, sounds.labels, recipe.sampling_kind)

    def epoch(
        self, epoch: int, start: int = 0, state: list[Tensor] | None = None
    ) -> tuple[EpochRandom, Iterator[Batch]]:
        """The random numbers of an epoch and its micro-batches from step `start` on, where `state` was taken."""
        random = EpochRandom(self._recipe.seed, epoch, self.micros)
        order = draw(self._weights, len(self._sounds.clips), random.order)
        if state is not None:
            random.restore(state)
        return random, self._batches(epoch, start, order, random)

    def _batches(self, epoch: int, start: int, order: Tensor, random: EpochRandom) -> Iterator[Batch]:
        places = [(step, micro) for step in range(start, self.steps) for micro in self.mine]
        for (step, micro), (chosen, waveforms) in zip(
            places, self._read(epoch, start, places, order, random), strict=True
        ):
            yield self._make(chosen, waveforms, random.of(step, micro))

    def _read(
        self, epoch: int, start: int, places: list[tuple[int, int]], order: Tensor, random: EpochRandom
    ) -> Iterator[tuple[list[int], list[Tensor]]]:
        recipe = self._recipe
        if recipe.reading == "stream":
            return islice(self._stream(epoch), start * len(self.mine), None)
        rows = [(step * self.micros + micro) * self.size for step, micro in places]
        partners = random.partners(len(order)) if recipe.mixup_partner == "corpus" else order[:0]
        wanted = ([*order[row : row + self.size].tolist(), *partners[row : row + self.size].tolist()] for row in rows)
        return read_batches(self._sounds.waveforms, wanted, recipe.workers)

    def _stream(self, epoch: int) -> Iterator[tuple[list[int], list[Tensor]]]:
        """All of an epoch's micro-batches of this process, as its shards bring them."""
        from model.training.shard_stream import ShardStream, StreamOrder  # webdataset is for streams alone

        recipe, share, sounds = self._recipe, self._share, self._sounds
        assert isinstance(sounds.waveforms, FileWaveforms)
        stream = ShardStream(sounds.clips, sounds.waveforms.sample_rate, sounds.waveforms.bad)
        order = StreamOrder(recipe.seed, epoch, share.rank, share.processes)
        return stream.batches(order, self.size, self.steps * len(self.mine), self._weights, recipe.workers)

    def _make(self, chosen: list[int], sounds: list[Tensor], generator: Generator) -> Batch:
        """Augment the sounds of a micro-batch, which mix-up partners follow if these come from the corpus."""
        waveforms, lengths = self._place(sounds, generator)
        wanted = targets([self._sounds.clips[i] for i in chosen], self._sounds.labels).to(self._share.device)
        rows = self.size
        partners = (waveforms[rows:], lengths[rows:], wanted[rows:])
        waveforms, lengths, wanted, counted = self._disturb(
            waveforms[:rows], lengths[:rows], wanted[:rows], partners, generator
        )
        log_mel, hidden = self._hear(waveforms, lengths, generator)
        batch = Batch(log_mel, wanted, waveforms, lengths, hidden, counted)
        return self._finish(batch, generator) if self._finish else batch

    def _place(self, sounds: list[Tensor], generator: Generator) -> tuple[Tensor, Tensor]:
        """Cut or pad sounds to the window, on the device: waveforms (B, S) and their lengths (B,)."""
        config, recipe = self._features.config, self._recipe
        samples = round(recipe.window_seconds * config.sample_rate)
        placed = [augment.place(sound, samples, generator if recipe.random_place else None) for sound in sounds]
        waveforms = torch.stack([waveform for waveform, _ in placed]).to(self._share.device)
        return waveforms, torch.tensor([length for _, length in placed], device=self._share.device)

    def _disturb(
        self,
        waveforms: Tensor,
        lengths: Tensor,
        wanted: Tensor,
        partners: tuple[Tensor, Tensor, Tensor],
        generator: Generator,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Everything that happens to waveforms (B, S): (waveforms, lengths, targets, which targets count or None)."""
        recipe, rate = self._recipe, self._features.config.sample_rate
        if recipe.roll:
            waveforms = augment.random_roll(waveforms, lengths, generator)
        waveforms = augment.random_gain(waveforms, recipe.gain_decibels, generator)
        waveforms = augment.random_low_pass(waveforms, recipe.low_pass_share, rate, generator)
        if recipe.high_pass_share:
            waveforms = augment.random_high_pass(waveforms, recipe.high_pass_share, rate, generator)
        chance, concentration = recipe.mixup_probability, recipe.mixup_concentration
        if recipe.mixup_partner == "corpus":
            mixed = augment.mix_up_with(waveforms, lengths, wanted, *partners, chance, concentration, generator)
        else:
            mixed = augment.mix_up(waveforms, lengths, wanted, chance, concentration, generator)
        return self._add_background(*mixed, generator)

    def _add_background(
        self, waveforms: Tensor, lengths: Tensor, wanted: Tensor, generator: Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Other sounds and noise behind waveforms (B, S); returns as `_disturb`."""
        recipe, counted = self._recipe, None
        if recipe.background_share:
            low, high = recipe.background_decibels
            share = recipe.background_share
            waveforms, unsure = augment.random_background(waveforms, lengths, wanted, share, (low, high), generator)
            counted = (~unsure).float()
        low, high = recipe.noise_decibels
        waveforms = augment.random_noise(waveforms, lengths, recipe.noise_share, (low, high), generator)
        return waveforms, lengths, wanted, counted

    def _hear(self, waveforms: Tensor, lengths: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Normalised log-mel (B, T, F) with SpecAugment, and which of its cells that hid."""
        recipe, features = self._recipe, self._features
        whole = features.unnormalised(waveforms, lengths)
        if recipe.warp_frames:
            whole = augment.warp_time(whole, recipe.warp_frames, generator)
        log_mel = whole
        for _ in range(recipe.mask_count):
            log_mel = augment.mask_spectrogram(log_mel, recipe.mask_mels, recipe.mask_frames, generator)
        hidden = (log_mel == 0) & (whole != 0)
        log_mel = features.normalise(log_mel, features.frame_counts(lengths))
        if recipe.spectrogram_noise:
            log_mel = augment.noise_and_shift(log_mel, generator)
        return log_mel, hidden
