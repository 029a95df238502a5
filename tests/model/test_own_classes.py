"""Taught classes beside a network's own labels, offline: scores, labels, events, and names."""

import numpy as np
import pytest
import torch

from model.events import EventRules
from model.labels import LabelSet, audioset_labels
from model.own_classes import (
    NO_CLASSES,
    ClassNameError,
    ClassNameTakenError,
    OwnClass,
    OwnClasses,
    check_class_name,
)
from model.pipeline import tag, window_outputs
from model.registry import find_checkpoint
from model.teaching import LinearHead, Quality
from model.windows import Window


def own_class(name: str, weight: np.ndarray, bias: float = 0.0, threshold: float = 0.5) -> OwnClass:
    quality = Quality(1.0, threshold, 1.0, 1.0, 4, 50)
    return OwnClass(name, 1, "2026-01-01T00:00:00+00:00", "0" * 64, LinearHead(weight, bias), quality, weight[None])


def test_scores_are_the_heads_by_name() -> None:
    classes = OwnClasses.of(
        [own_class("b", np.array([0, 1], np.float32)), own_class("A", np.array([1, 0], np.float32), 1)]
    )
    assert [own.mid for own in classes] == ["/own/A", "/own/b"]
    scores = classes.scores(np.array([[0, 0], [2, -2]], np.float32))
    assert scores == pytest.approx(1 / (1 + np.exp(-np.array([[1, 0], [3, -2]]))), abs=1e-6)
    assert NO_CLASSES.scores(np.zeros((3, 2))).shape == (3, 0)
    assert NO_CLASSES.scores(np.zeros(2)).shape == (0,)


def test_labels_and_thresholds_stand_behind_the_networks() -> None:
    labels = LabelSet.from_mids(["/m/0bt9lr"])
    classes = OwnClasses.of([own_class("beep", np.ones(2, np.float32), threshold=0.8)])
    assert [(label.index, label.mid, label.name) for label in classes.extend_labels(labels)] == [
        (0, "/m/0bt9lr", "Dog"),
        (1, "/own/beep", "beep"),
    ]
    assert classes.extend_rules(EventRules()).thresholds("/own/beep")[0] == 0.8
    assert NO_CLASSES.extend_labels(labels) is labels


@pytest.mark.checkpoint
def test_offline_tagging_with_a_taught_class() -> None:
    """The class is the network's own "Dog" under another name, so both must score alike."""
    from model.checkpoint import load

    checkpoint = load(find_checkpoint("aum-tiny"))
    place = checkpoint.labels.mids.index("/m/0bt9lr")
    head: torch.nn.Linear = checkpoint.network.head  # type: ignore[assignment]
    own = own_class("my dog", head.weight[place].numpy(), float(head.bias[place]))
    sound = checkpoint.golden.waveform.numpy()
    tagging = tag(np.tile(sound, 7), checkpoint, own_classes=OwnClasses.of([own]), top_k=1000, rollup=True)
    by_mid = {label.mid: label.score for label in tagging.labels}
    assert tagging.scores.shape == (2, len(checkpoint.labels) + 1)
    assert tagging.scores[:, -1] == pytest.approx(tagging.scores[:, place], abs=1e-5)
    assert "/own/my dog" in by_mid
    plain = tag(np.tile(sound, 7), checkpoint)
    assert np.array_equal(plain.scores, tagging.scores[:, :-1])
    logits, embeddings = window_outputs(checkpoint, [Window(0, 0, sound)])
    assert head(torch.from_numpy(embeddings)).detach().numpy() == pytest.approx(logits, abs=1e-5)


@pytest.mark.parametrize("name", ["beep", "Türklingel 2", "お知らせ", "घंटी", "door-bell_(front)", "B.", "x" * 64])
def test_names_that_can_be_labels(name: str) -> None:
    assert check_class_name(name, audioset_labels()) == name


def test_a_name_is_stored_composed() -> None:
    assert check_class_name("Tu\u0308r", audioset_labels()) == "T\u00fcr"


@pytest.mark.parametrize(
    "name", ["", " ", "x" * 65, " a", "a ", "a/b", "a\\b", "a\nb", "a\x00", "..", '"a"', "a\u202eb", "<b>"]
)
def test_names_that_cannot(name: str) -> None:
    with pytest.raises(ClassNameError):
        check_class_name(name, audioset_labels())


@pytest.mark.parametrize("name", ["Speech", "speech", "INSIDE, SMALL ROOM"])
def test_names_that_the_network_has(name: str) -> None:
    with pytest.raises(ClassNameTakenError, match="already"):
        check_class_name(name, audioset_labels())
