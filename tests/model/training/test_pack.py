"""Packing gives the same bytes every time, bounded tars, and goes on where it was interrupted."""

import gc
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import webdataset

from model.labels import LabelSet
from model.training import pack as packing
from model.training.bad_files import BadFiles
from model.training.clips import Clip, ManifestError
from model.training.corpus import read_corpus
from model.training.data import load_waveforms
from model.training.labelled import Corpus
from model.training.pack import Packer, PackOptions
from tests.model.training.corpora import broken, write_clips

LABELS = LabelSet.from_mids(["/m/0bt9lr", "/m/06mb1", "/m/09x0r"])
SMALL = PackOptions(shard_bytes=40_000)


def _corpus(folder: Path, clips: int = 30) -> Corpus:
    mids = [(LABELS.mids[number % 3],) for number in range(clips)]
    written = write_clips(folder, mids)
    return Corpus(
        [replace(clip, fold=number % 5, part="training", category="x") for number, clip in enumerate(written)], LABELS
    )


def _quiet() -> BadFiles:
    return BadFiles("skip", lambda line: None)


def _pack(corpus: Corpus, folder: Path, options: PackOptions = SMALL, bad: BadFiles | None = None) -> int:
    return Packer(corpus, folder, options, bad or _quiet()).pack()


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_what_was_packed_reads_back(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path / "a")
    assert _pack(corpus, tmp_path / "out") == 30
    packed = read_corpus(tmp_path / "out")
    assert packed.labels == LABELS
    by_name = {str(clip.file): clip for clip in packed.clips}
    for clip in corpus.clips:
        assert replace(by_name[clip.file.name], stored=None) == replace(clip, file=Path(clip.file.name))
    _, sounds = load_waveforms([by_name[clip.file.name] for clip in corpus.clips], 16000)
    _, originals = load_waveforms(corpus.clips, 16000)
    assert all(torch.equal(a, b) for a, b in zip(sounds, originals, strict=True))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves the files open
def test_webdataset_itself_reads_the_tars(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path / "a")
    _pack(corpus, tmp_path / "out")
    tars = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    samples = webdataset.WebDataset(tars, shardshuffle=False)
    sounds = {json.loads(sample["json"])["file"]: sample["wav"] for sample in samples}
    del samples
    gc.collect()  # or its files would be closed, with a warning, in the middle of another test
    assert sounds == {clip.file.name: clip.file.read_bytes() for clip in corpus.clips}


def test_tars_are_bounded_and_hold_labels_beside_sounds(tmp_path: Path) -> None:
    _pack(_corpus(tmp_path / "a"), tmp_path / "out")
    tars = sorted((tmp_path / "out").glob("*.tar"))
    assert len(tars) > 3
    assert all(path.stat().st_size <= 40_000 for path in tars)
    with tarfile.open(tars[0]) as shard:
        names = shard.getnames()
        labels = json.load(shard.extractfile(names[1]))  # type: ignore[arg-type]
    assert names[:2] == ["000000000000.wav", "000000000000.json"]
    assert labels["mids"][0] in LABELS.mids


def test_a_clip_larger_than_a_tar_gets_one_of_its_own(tmp_path: Path) -> None:
    assert _pack(_corpus(tmp_path / "a", 3), tmp_path / "out", PackOptions(shard_bytes=1)) == 3
    assert len(list((tmp_path / "out").glob("*.tar"))) == 3


def test_the_same_corpus_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    _corpus(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "deeper")
    _pack(_corpus(tmp_path / "a"), tmp_path / "one")
    _pack(_corpus(tmp_path / "b" / "deeper"), tmp_path / "two", replace(SMALL, workers=1))
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")
    _pack(_corpus(tmp_path / "a"), tmp_path / "three", replace(SMALL, seed=1))
    assert _contents(tmp_path / "one") != _contents(tmp_path / "three")


def test_an_interrupted_pack_goes_on_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = _corpus(tmp_path / "a")
    _pack(corpus, tmp_path / "whole")
    written: list[str] = []
    real = Packer._write_shard

    def interrupted(self: Packer, tar: Path, number: int, clips: list[Clip]) -> object:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(tar.name)
        return real(self, tar, number, clips)

    monkeypatch.setattr(Packer, "_write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _pack(corpus, tmp_path / "parts")
    with pytest.raises(ManifestError, match="not finished; run the same `hark pack` again"):
        read_corpus(tmp_path / "parts")
    monkeypatch.setattr(
        Packer, "_write_shard", lambda self, tar, *rest: (written.append(tar.name), real(self, tar, *rest))[1]
    )
    _pack(corpus, tmp_path / "parts")
    assert len(written) == len(set(written))  # nothing was written twice
    assert _contents(tmp_path / "parts") == _contents(tmp_path / "whole")


def test_packing_again_mends_a_damaged_shard(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path / "a")
    _pack(corpus, tmp_path / "out")
    whole = _contents(tmp_path / "out")
    damaged = bytearray(whole["000001.tar"])
    damaged[5000] ^= 1
    (tmp_path / "out" / "000001.tar").write_bytes(damaged)
    index = tmp_path / "out" / "000002.json"
    index.write_text(index.read_text().replace("/m/0bt9lr", "/m/09x0r"))
    (tmp_path / "out" / "000003.json").unlink()
    _pack(corpus, tmp_path / "out")
    assert _contents(tmp_path / "out") == whole


def test_broken_and_missing_files_are_left_out_and_counted_also_when_it_goes_on(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path / "a", 4)
    gone = Clip(tmp_path / "a" / "gone.wav", (), "g", None, "")
    corpus = Corpus([*corpus.clips, broken(tmp_path / "a"), gone], LABELS)
    for _ in range(2):
        bad = _quiet()
        assert _pack(corpus, tmp_path / "out", bad=bad) == 4
        assert {file.name for file in bad.reasons} == {"broken.wav", "gone.wav"}
    assert _pack(corpus, tmp_path / "unchecked", replace(SMALL, check=False)) == 5
    with pytest.raises(ManifestError, match=r"gone\.wav cannot be read"):
        _pack(corpus, tmp_path / "strict", bad=BadFiles("stop"))


def test_the_folder_of_another_pack_or_of_other_things_is_refused(tmp_path: Path) -> None:
    _pack(_corpus(tmp_path / "a"), tmp_path / "out")
    with pytest.raises(ManifestError, match="holds a pack of other clips"):
        _pack(_corpus(tmp_path / "a", 29), tmp_path / "out")
    with pytest.raises(ManifestError, match="is not empty"):
        _pack(_corpus(tmp_path / "a"), tmp_path / "a")
    with pytest.raises(ManifestError, match="in shards already"):
        _pack(read_corpus(tmp_path / "out"), tmp_path / "again")


def test_nothing_to_pack_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="none of the clips can be read"):
        _pack(Corpus([broken(tmp_path)], LABELS), tmp_path / "out")
    with pytest.raises(ManifestError, match="none of the clips exist"):
        _pack(Corpus([Clip(tmp_path / "gone.wav", (), "", None, "")], LABELS), tmp_path / "out2")


def test_too_small_a_disk_is_found_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda path: disk._replace(free=1000))
    with pytest.raises(OSError, match=r"the disk has 0\.0 MB left"):
        _pack(_corpus(tmp_path / "a"), tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.tar"))


def test_a_disk_that_fills_leaves_no_half_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing, "_add_file", full)
    with pytest.raises(OSError, match="No space left"):
        _pack(_corpus(tmp_path / "a"), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plan.json"]


def test_a_file_name_that_is_odd_gives_an_entry_that_is_not(tmp_path: Path) -> None:
    """What follows the last dot was the entry's ending: too long a one ended the pack, .json hid the labels."""
    written = write_clips(tmp_path / "a", [("/m/0bt9lr",)] * 3)
    names = ("x. " + "long " * 25, "x.json", "x.WAV")
    clips = [
        replace(clip, file=clip.file.rename(tmp_path / "a" / name)) for clip, name in zip(written, names, strict=True)
    ]
    assert _pack(Corpus(clips, LABELS), tmp_path / "out") == 3
    with tarfile.open(tmp_path / "out" / "000000.tar") as shard:
        endings = [Path(name).suffix for name in shard.getnames()]
    assert sorted(endings) == [".audio", ".audio", ".json", ".json", ".json", ".wav"]


def test_a_name_that_no_file_can_have_is_left_out(tmp_path: Path) -> None:
    """It ended the pack of a datafile with a ValueError that named no file."""
    corpus = _corpus(tmp_path / "a", 2)
    bad = _quiet()
    odd = Corpus([*corpus.clips, Clip(tmp_path / "a\0.wav", (), "g", None, "")], LABELS)
    assert _pack(odd, tmp_path / "out", bad=bad) == 2
    assert list(bad.reasons.values()) == ["embedded null byte"]
