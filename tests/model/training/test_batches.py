"""The order of an epoch, its random numbers, and how processes share it."""

from pathlib import Path

import pytest
import torch

from model.features import FeatureConfig, LogMel
from model.training.bad_files import BadFiles
from model.training.batches import EpochRandom, Feed, Share, Sounds
from model.training.corpus import read_corpus
from model.training.losses import Batch
from model.training.pack import Packer, PackOptions
from model.training.recipe import Recipe
from model.training.sounds import Place, open_sounds, read_parts
from tests.model.training.tiny_runs import FBANK, quiet, tiny_recipe, write_corpus


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(write_corpus(tmp_path_factory.mktemp("sounds")))


def _sounds(recipe: Recipe, place: Place) -> Sounds:
    return open_sounds(recipe, place, read_parts(recipe, place), 16000, quiet)[0]


def _feed(recipe: Recipe, place: Place, share: Share | None = None) -> Feed:
    return Feed(recipe, LogMel(FeatureConfig(**FBANK)), _sounds(recipe, place), share or Share())


def _same(first: list[Batch], second: list[Batch]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.equal(a.log_mel, b.log_mel) and torch.equal(a.wanted, b.wanted) for a, b in pairs)


def test_an_epoch_has_whole_batches_and_another_one_differs(place: Place) -> None:
    feed = _feed(tiny_recipe(), place)
    batches = list(feed.epoch(0)[1])
    assert len(batches) == feed.steps == 4
    assert batches[0].log_mel.shape == (8, 32, 32)
    assert batches[0].wanted.shape == (8, 2)
    assert _same(batches, list(feed.epoch(0)[1]))
    assert not _same(batches, list(feed.epoch(1)[1]))


@pytest.mark.parametrize("micro_batch", [0, 4])
def test_an_epoch_goes_on_in_its_middle(place: Place, micro_batch: int) -> None:
    feed = _feed(tiny_recipe(micro_batch=micro_batch), place)
    random, batches = feed.epoch(3)
    seen = [next(batches) for _ in range(2 * feed.micros)]
    state, rest, dropout = random.state(), list(batches), torch.rand(3)
    _, resumed = feed.epoch(3, 2, state)
    assert _same(rest, list(resumed))
    assert not _same(seen, rest)
    assert torch.equal(dropout, torch.rand(3))


def test_processes_share_the_micro_batches_of_every_step(place: Place) -> None:
    recipe = tiny_recipe(micro_batch=2)
    whole = list(_feed(recipe, place).epoch(0)[1])
    shares = [list(_feed(recipe, place, Share(rank, 2)).epoch(0)[1]) for rank in range(2)]
    assert _same(whole, [batch for pair in zip(*shares, strict=True) for batch in pair])


def test_files_give_the_batches_that_memory_gives(place: Place) -> None:
    memory = list(_feed(tiny_recipe(), place).epoch(0)[1])
    assert _same(memory, list(_feed(tiny_recipe(reading="files", workers=2), place).epoch(0)[1]))


def test_mix_up_partners_come_from_the_corpus(place: Place) -> None:
    recipe = tiny_recipe(mixup_partner="corpus", mixup_probability=1.0, mixup_concentration=10.0, batch=2)
    batches = list(_feed(recipe, place).epoch(0)[1])
    assert any(0 < float(value) < 1 for batch in batches for value in batch.wanted.flatten())
    assert torch.equal(EpochRandom(1, 2, 1).partners(50), EpochRandom(1, 2, 4).partners(50))


def test_every_augmentation_can_be_switched_on(place: Place) -> None:
    recipe = tiny_recipe(
        high_pass_share=1.0,
        background_share=1.0,
        noise_share=1.0,
        warp_frames=3,
        mask_count=2,
        spectrogram_noise=True,
        random_place=False,
    )
    batches = list(_feed(recipe, place).epoch(0)[1])
    assert all(torch.isfinite(batch.log_mel).all() for batch in batches)
    assert any(batch.counted is not None and (batch.counted == 0).any() for batch in batches)
    assert all(batch.hidden is not None and batch.hidden.any() for batch in batches)


def test_shards_in_sequence_go_on_in_the_middle_of_an_epoch(tmp_path: Path, place: Place) -> None:
    packed = tmp_path / "shards"
    corpus = read_corpus(place.manifest)
    Packer(corpus, packed, PackOptions(shard_bytes=60_000), BadFiles("skip", quiet)).pack()
    recipe = tiny_recipe(reading="stream", validation_fold=0)
    feed = _feed(recipe, Place(packed))
    whole = list(feed.epoch(0)[1])
    assert len(whole) == feed.steps == 5
    random, batches = feed.epoch(0)
    taken = [next(batches) for _ in range(2)]
    _, rest = feed.epoch(0, 2, random.state())
    assert _same(whole, [*taken, *rest])
