"""Streams from shards: every clip once a pass, shared by ranks and workers, the same for the same seed."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from model.labels import LabelSet
from model.training.bad_files import BadFiles
from model.training.clips import Clip, ManifestError
from model.training.corpus import read_corpus
from model.training.data import load_waveforms
from model.training.labelled import Corpus
from model.training.pack import Packer, PackOptions
from model.training.shard_stream import Batch, ShardStream, StreamOrder
from tests.model.training.corpora import broken, write_clips

LABELS = LabelSet.from_mids(["a", "b"])


def _packed(folder: Path, extra: list[Clip] | None = None, check: bool = True) -> list[Clip]:
    corpus = Corpus([*write_clips(folder / "clips", [("a",), ("b",)] * 12), *(extra or [])], LABELS)
    Packer(corpus, folder / "shards", PackOptions(shard_bytes=30_000, check=check), _quiet()).pack()
    return read_corpus(folder / "shards").clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return _packed(tmp_path_factory.mktemp("packed"))


def _quiet() -> BadFiles:
    return BadFiles("skip", lambda line: None)


def _batches(clips: list[Clip], order: StreamOrder, steps: int = 6, **options: object) -> list[Batch]:
    return list(ShardStream(clips, 16000, _quiet()).batches(order, 4, steps, **options))  # type: ignore[arg-type]


def _indices(batches: list[Batch]) -> list[int]:
    return [index for chosen, _ in batches for index in chosen]


def test_a_pass_gives_every_clip_once_and_its_own_sound(clips: list[Clip]) -> None:
    batches = _batches(clips, StreamOrder(seed=1, epoch=0))
    assert sorted(_indices(batches)) == list(range(24))
    _, loaded = load_waveforms(clips, 16000)
    for chosen, sounds in batches:
        assert all(torch.equal(loaded[index], sound) for index, sound in zip(chosen, sounds, strict=True))


def test_the_order_follows_from_seed_and_epoch(clips: list[Clip]) -> None:
    orders = [_indices(_batches(clips, StreamOrder(seed, epoch))) for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3


def test_ranks_share_the_shards_and_give_equally_many_batches(clips: list[Clip]) -> None:
    parts = [_indices(_batches(clips, StreamOrder(1, 0, rank, 2), steps=2)) for rank in (0, 1)]
    assert not set(parts[0]) & set(parts[1])
    assert len(parts[0]) == len(parts[1]) == 8
    assert len(_indices(_batches(clips, StreamOrder(1, 0, 0, 2), steps=9))) == 36  # begins its next pass


def test_workers_share_the_shards_and_leave_the_networks_random_numbers_alone(clips: list[Clip]) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again = (_indices(_batches(clips, StreamOrder(1, 0), steps=3, workers=2)) for _ in range(2))
    assert first == again
    assert len(set(first)) == 12
    assert torch.equal(torch.get_rng_state(), before)


def test_other_clips_of_the_shards_are_passed_over(clips: list[Clip]) -> None:
    training = [clip for clip in clips if clip.mids == ("b",)]
    assert sorted(_indices(_batches(training, StreamOrder(1, 0), steps=3))) == list(range(12))


def test_rare_clips_come_back_as_often_as_weighted_draws_would_bring_them(clips: list[Clip]) -> None:
    weights = torch.tensor([3.0 if clip.mids == ("a",) else 1.0 for clip in clips])
    heard = Counter(
        clips[index].mids[0] for index in _indices(_batches(clips, StreamOrder(1, 0), 100, weights=weights))
    )
    assert heard["a"] / heard["b"] == pytest.approx(3, rel=0.15)


def test_too_few_shards_for_the_ranks_and_workers_are_refused(clips: list[Clip]) -> None:
    with pytest.raises(ManifestError, match="shards cannot be shared by 5 ranks of 4 workers"):
        _batches(clips, StreamOrder(1, 0, 0, 5), workers=4)


@pytest.mark.parametrize("workers", [0, 1])
def test_corrupt_clips_are_passed_over_and_counted(tmp_path: Path, workers: int) -> None:
    (tmp_path / "clips").mkdir()
    clips = _packed(tmp_path, [broken(tmp_path / "clips")], check=False)
    bad = _quiet()
    batches = list(ShardStream(clips, 16000, bad).batches(StreamOrder(1, 0), 4, 7, workers=workers))
    assert len(set(_indices(batches))) == 24
    assert [file.name for file in bad.reasons] == ["broken.wav"]
    with pytest.raises(ManifestError, match=r"broken\.wav cannot be read"):
        list(ShardStream(clips, 16000, BadFiles("stop")).batches(StreamOrder(1, 0), 4, 7, workers=workers))


def test_clips_that_a_damaged_shard_no_longer_gives_are_counted(tmp_path: Path) -> None:
    """A zeroed header ends a tar without any error, so that its other clips would be missing silently."""
    clips = _packed(tmp_path)
    tar = tmp_path / "shards" / "000001.tar"
    lost = [clip for clip in clips if clip.stored and clip.stored.shard == tar]
    second = lost[1].stored
    assert second is not None
    content = bytearray(tar.read_bytes())
    content[second.offset_bytes - 512 : second.offset_bytes] = bytes(512)
    tar.write_bytes(content)
    bad = _quiet()
    list(ShardStream(clips, 16000, bad).batches(StreamOrder(1, 0), 4, 6))
    assert {str(file) for file in bad.reasons} == {str(clip.file) for clip in lost[1:]}
    tar.unlink()
    list(ShardStream(clips, 16000, bad).batches(StreamOrder(1, 0), 4, 6))
    assert {str(file) for file in bad.reasons} == {str(clip.file) for clip in lost}


def test_a_worker_whose_clips_are_all_broken_is_an_error_and_no_endless_search(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    clips = _packed(tmp_path, [broken(tmp_path / "clips")], check=False)
    only_broken = [clip for clip in clips if clip.file.name == "broken.wav"]
    with pytest.raises(ManifestError, match="gave no clip to train on"):
        _batches(only_broken, StreamOrder(1, 0))


def test_a_rank_whose_shards_hold_only_clips_of_weight_0_waits_for_other_shards(clips: list[Clip]) -> None:
    shards = sorted({clip.stored.shard for clip in clips if clip.stored})
    weights = torch.tensor([float(clip.stored is not None and clip.stored.shard == shards[0]) for clip in clips])
    heard = _indices(_batches(clips, StreamOrder(1, 0, 0, len(shards)), steps=2, weights=weights))
    assert {float(weights[index]) for index in heard} == {1.0}
