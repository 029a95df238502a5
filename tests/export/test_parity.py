"""What the comparison counts, and what it lets pass."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from export.clips import read_clips
from export.errors import ExportError, ParityError
from export.parity import MANY_CLIPS, Exported, compare_logits, made_sounds, measure_parity
from model.checkpoint import Checkpoint


def test_parity_counts_differences_and_nan() -> None:
    expected = np.arange(12.0).reshape(2, 6)
    shifted = compare_logits(expected, expected + 0.5)
    assert (shifted.max_abs_diff, shifted.mean_abs_diff, shifted.relative_diff) == (0.5, 0.5, 0.5 / 11)
    assert (shifted.top1_agreement, shifted.top5_agreement) == (1.0, 1.0)
    turned = compare_logits(expected, expected[:, ::-1])
    assert (turned.top1_agreement, turned.top5_agreement) == (0.0, 0.0)
    assert compare_logits(expected, np.full((2, 6), np.nan)).max_abs_diff == float("inf")
    with pytest.raises(ValueError, match="shape"):
        compare_logits(expected, expected[:1])


def test_only_scores_that_people_see_count_as_moved() -> None:
    assert compare_logits(np.array([[-9.0, -9.0]]), np.array([[-4.0, -9.0]])).max_score_diff == 0.0
    assert compare_logits(np.array([[0.0]]), np.array([[0.4]])).max_score_diff == pytest.approx(0.0987, abs=1e-3)
    assert compare_logits(np.array([[-9.0]]), np.array([[9.0]])).max_score_diff > 0.9
    softmax = compare_logits(np.array([[0.0, 0.0]]), np.array([[50.0, 50.0]]), "softmax")
    assert softmax.max_score_diff == 0.0


@pytest.mark.parametrize("off", [0.2, float("nan")])
def test_what_drifts_is_refused_in_every_precision(off: float) -> None:
    drifted = compare_logits(np.zeros((1, 3)), np.full((1, 3), off))
    for precision in ("float32", "float16", "bfloat16", "int8"):
        with pytest.raises(ParityError):
            drifted.check(precision)


def test_a_moved_score_is_refused_though_the_logits_are_within_their_range() -> None:
    wide = np.array([[-20.0, 20.0, 0.0]])
    moved = compare_logits(wide, wide + 0.3)
    with pytest.raises(ParityError, match="score"):
        moved.check("int8")


def test_wrong_embeddings_are_refused_though_every_logit_is_right(small_ast: Checkpoint) -> None:
    """An export with embeddings times -3 was kept and served: nothing looked at them."""

    def exported(factor: float) -> Exported:
        def run(log_mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            with torch.inference_mode():
                embeddings = small_ast.network.embed(torch.from_numpy(log_mel))
                return small_ast.network.head(embeddings).numpy(), factor * embeddings.numpy()

        return run

    measure_parity(small_ast, exported(1.0)).check("float32")
    for factor in (-3.0, float("nan")):
        wrong = measure_parity(small_ast, exported(factor))
        for precision in ("float32", "float16", "bfloat16", "int8"):
            with pytest.raises(ParityError, match="embeddings"):
                wrong.check(precision)


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize(
    ("wrong", "words"), [({"top5_agreement": 0.8}, "best five"), ({"map_diff": -0.02}, "average precision")]
)
def test_labels_in_another_order_are_refused_on_many_real_clips(
    precision: str, wrong: dict[str, float], words: str
) -> None:
    """Both were measured, written down and not looked at."""
    same = compare_logits(np.zeros((MANY_CLIPS, 6)), np.zeros((MANY_CLIPS, 6)))
    same.check(precision)
    with pytest.raises(ParityError, match=words):
        replace(same, **wrong).check(precision)
    replace(same, clips=4, **wrong).check(precision)


def test_the_map_difference_is_counted_where_labels_are_known(small_ast: Checkpoint, tmp_path: Path) -> None:
    sounds = made_sounds(small_ast)
    for number, sound in enumerate(sounds):
        soundfile.write(tmp_path / f"{number}.wav", sound.numpy(), 16_000)
    mids = [small_ast.labels.mids[0], small_ast.labels.mids[0], "/m/unknown"]
    rows = [f"{number}.wav,{mid},{number}" for number, mid in enumerate(mids)]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(["file,mids,split_group", *rows, "missing.wav,,9"]) + "\n")
    clips = read_clips(manifest, small_ast)
    assert len(clips.waveforms) == 3
    assert clips.truth is not None
    assert clips.truth.sum() == 2

    def opposite(log_mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            embeddings = small_ast.network.embed(torch.from_numpy(log_mel))
            return -small_ast.network.head(embeddings).numpy(), embeddings.numpy()

    def same(log_mel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, embeddings = opposite(log_mel)
        return -logits, embeddings

    assert measure_parity(small_ast, same, clips).map_diff == 0.0
    assert measure_parity(small_ast, opposite, clips).map_diff != 0.0


def test_a_manifest_without_readable_clips_is_refused(small_ast: Checkpoint, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("file,mids,split_group\nmissing.wav,,0\n")
    with pytest.raises(ExportError, match="no clip"):
        read_clips(manifest, small_ast)
