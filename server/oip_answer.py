"""The Open Inference Protocol's answer: the outputs of several sounds as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.checkpoint import Checkpoint
from model.labels import LabelSet
from model.scores import clip_scores, logits_to_scores
from server.content_encoding import compress
from server.oip_question import Question, WantedOutput
from server.oip_tensors import Tensor, render_answer
from server.sounds import HeardSound

VERSION = "1"  # of every model: a name serves one checkpoint at a time


@dataclass(frozen=True)
class InferAnswer:
    """The body, its JSON's length where tensors' bytes follow, and its Content-Encoding where it has one."""

    body: bytes
    json_bytes: int | None
    encoding: str | None


def answer_question(
    question: Question, checkpoint: Checkpoint, sounds: Sequence[HeardSound], accept_encoding: str
) -> InferAnswer:
    """Everything that the question asks of the sounds, in its order."""
    outputs = [_output(wanted, checkpoint, sounds) for wanted in question.outputs]
    head = {"model_name": checkpoint.name, "model_version": VERSION}
    if question.id:
        head["id"] = question.id
    body, json_bytes = render_answer(head, outputs, [wanted.binary for wanted in question.outputs])
    compressed, encoding = compress(body, accept_encoding)
    return InferAnswer(compressed, json_bytes, encoding)


def _output(wanted: WantedOutput, checkpoint: Checkpoint, sounds: Sequence[HeardSound]) -> Tensor:
    labels = sounds[0].own.classes.extend_labels(checkpoint.labels)
    if wanted.name == "scores":
        return _scores(wanted, clip_score_rows(checkpoint, sounds), labels)
    if wanted.name == "embeddings":
        embeddings = np.stack([sound.mean_embedding() for sound in sounds])
        return Tensor("embeddings", "FP32", embeddings.shape, embeddings)
    texts = [label.name if wanted.name == "labels" else label.mid for label in labels]
    return Tensor(wanted.name, "BYTES", (len(texts),), [text.encode() for text in texts])


def clip_score_rows(checkpoint: Checkpoint, sounds: Sequence[HeardSound]) -> np.ndarray:
    """Each sound's highest scores over its windows (n, C), those of taught classes behind the network's own."""
    rows = []
    for sound in sounds:
        scores = logits_to_scores(sound.logits, checkpoint.config.activation)
        rows.append(clip_scores(np.concatenate([scores, sound.own.scores], axis=1)))
    return np.stack(rows)


def _scores(wanted: WantedOutput, scores: np.ndarray, labels: LabelSet) -> Tensor:
    """The scores (n, C) themselves; or each sound's best classes as text (n, k)."""
    if not wanted.classification:
        return Tensor("scores", "FP32", scores.shape, scores)
    best = np.argsort(-scores, axis=1, kind="stable")[:, : wanted.classification]  # (n, k)
    texts = [
        f"{row[i]:f}:{i}:{labels[i].name}".encode() for row, places in zip(scores, best, strict=True) for i in places
    ]
    return Tensor("scores", "BYTES", best.shape, texts)
