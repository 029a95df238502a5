"""One page of HTML about an evaluation, with curves, bars and the worst mistakes to listen to.

It needs no other file and no network: style, script and drawings are `report_page/`'s, sounds are short and inline.
"""

import base64
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Literal

from model.training.charts import mean_curve, precision_recall_chart, reliability_chart, small_curve
from model.training.evaluate import MEASURES, Evaluation, LabelMeasures, to_rows
from model.training.metrics import PrecisionRecall, precision_recall
from model.training.mistakes import Mistake, confusions, excerpt, label_names, worst_mistakes
from model.training.predictions import Predictions
from model.whole_files import write_whole

PAGE = Path(__file__).parent / "report_page"
REPORT, NUMBERS = "report.html", "evaluation.json"
_HEADINGS = ("label", "clips", "average precision", "ROC AUC", "threshold", "precision", "recall", "F1")


def write_report(
    folder: Path, predictions: Predictions, evaluation: Evaluation, source: str, members: Sequence[Evaluation] = ()
) -> Path:
    """Write report.html and evaluation.json into a folder, and give the page's path.

    `source` says in words which clips were scored; `members` are the checkpoints of an ensemble.

    Raises: OSError if the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = json.dumps(to_rows(evaluation), indent=2, ensure_ascii=False) + "\n"
    page = render(predictions, evaluation, source, members)
    for name, text in ((NUMBERS, numbers), (REPORT, page)):  # file names may hold what is no text
        write_whole(folder / name, text.encode(errors="backslashreplace"))
    return folder / REPORT


def render(predictions: Predictions, evaluation: Evaluation, source: str, members: Sequence[Evaluation] = ()) -> str:
    """The page's text."""
    curves = {
        label.mid: precision_recall(predictions.scores[:, label.index], predictions.truth[:, label.index])
        for label in predictions.labels
        if predictions.truth[:, label.index].any()
    }
    pooled = precision_recall(predictions.scores.ravel(), predictions.truth.ravel())
    overall = [("mean over the labels", *mean_curve(curves.values()))]
    overall.append(("all decisions together", pooled.recall, pooled.precision))
    return Template((PAGE / "page.html").read_text(encoding="utf-8")).substitute(
        style=(PAGE / "page.css").read_text(encoding="utf-8"),
        script=(PAGE / "page.js").read_text(encoding="utf-8"),
        name=escape(evaluation.name),
        subject=escape(f"{evaluation.clips} clips of {source}, {len(evaluation.labels)} labels."),
        tiles="".join(_tile(name, value) for name, value in evaluation.measures.items()),
        members=_members(evaluation, members),
        precision_recall=precision_recall_chart(overall),
        every_score=reliability_chart(evaluation.every_score),
        best_label=reliability_chart(evaluation.best_label),
        label_headings="".join(f'<th scope="col"><button type="button">{text}</button></th>' for text in _HEADINGS),
        label_rows="".join(map(_label_row, sorted(evaluation.labels, key=_worst_first))),
        absent=_absent(evaluation),
        curves="".join(
            _curve(row, curves[row.mid]) for row in sorted(evaluation.labels, key=_worst_first) if row.mid in curves
        ),
        confusions=_confusions(predictions),
        false_alarms=_mistakes(predictions, "false alarm"),
        misses=_mistakes(predictions, "miss"),
        unreadable=_unreadable(predictions.unreadable),
    )


def number(value: float) -> str:
    """A measure for people: three decimals, nothing where it is undefined."""
    if math.isnan(value):
        return ""
    return f"{value:.3f}" if math.isfinite(value) else ("∞" if value > 0 else "-∞")


def _worst_first(row: LabelMeasures) -> tuple[bool, float]:
    return math.isnan(row.average_precision), row.average_precision


def _tile(name: str, value: float) -> str:
    return f"<div><strong>{number(value)}</strong><span>{MEASURES[name]}</span></div>"


def _members(whole: Evaluation, members: Sequence[Evaluation]) -> str:
    """A table of an ensemble beside its members; nothing for a single checkpoint."""
    if not members:
        return ""
    together = [*members, whole]
    head = "".join(f'<th scope="col">{escape(one.name)}</th>' for one in together)
    rows = "".join(
        f"<tr><td>{MEASURES[name]}</td>"
        + "".join(f"<td>{number(one.measures.get(name, math.nan))}</td>" for one in together)
        + "</tr>"
        for name in whole.measures
    )
    return (
        f"<section><h2>Members</h2><div class=wide><table><thead><tr><th></th>{head}</tr></thead>{rows}</table>"
        "</div></section>"
    )


def _label_row(row: LabelMeasures) -> str:
    cells = [_meter(row.average_precision)]
    cells += [_cell(value) for value in (row.roc_auc, row.threshold, row.precision, row.recall, row.f1)]
    label = escape(row.label)
    return (
        f'<tr data-label="{label}"><td title="{escape(row.mid)}">{label}</td><td>{row.clips}</td>{"".join(cells)}</tr>'
    )


def _cell(value: float) -> str:
    return f"<td>{number(value)}</td>"


def _meter(value: float) -> str:
    share = 0 if math.isnan(value) else value
    return (
        f'<td data-value="{number(value)}"><span class="meter"><i><b style="width:{share:.1%}"></b></i>'
        f"{number(value)}</span></td>"
    )


def _curve(row: LabelMeasures, curve: PrecisionRecall) -> str:
    point = None if math.isnan(row.precision) else (row.recall, row.precision)
    told = f"{escape(row.label)}<br><strong>{number(row.average_precision)}</strong>, clips: {row.clips}"
    return (
        f'<figure data-label="{escape(row.label)}">{small_curve(curve, point)}<figcaption>{told}</figcaption></figure>'
    )


def _absent(evaluation: Evaluation) -> str:
    if not evaluation.absent:
        return ""
    named = escape(", ".join(evaluation.absent))
    return (
        f"<details><summary>{len(evaluation.absent)} labels have no clip here and count in no mean</summary>"
        f"<p>{named}</p></details>"
    )


def _confusions(predictions: Predictions) -> str:
    pairs = confusions(predictions)
    if not pairs:
        return "<p>Nothing: the best label was always one of the clip's.</p>"
    most = pairs[0].clips
    rows = "".join(
        f"<tr><td>{escape(pair.label)}</td><td>{escape(pair.heard)}</td><td><span class=meter><i>"
        f'<b style="width:{pair.clips / most:.1%}"></b></i>{pair.clips}</span></td></tr>'
        for pair in pairs
    )
    return f"<table><thead><tr><th>label</th><th>taken for</th><th>clips</th></tr></thead>{rows}</table>"


def _mistakes(predictions: Predictions, kind: Literal["false alarm", "miss"]) -> str:
    found = worst_mistakes(predictions, kind)
    return "".join(_mistake(predictions, mistake) for mistake in found) or "<li>None.</li>"


def _mistake(predictions: Predictions, mistake: Mistake) -> str:
    clip = predictions.clips[mistake.row]
    best = predictions.labels[int(predictions.scores[mistake.row].argmax())].name
    verb = "heard" if mistake.kind == "false alarm" else "not heard"
    has = label_names(clip, predictions.labels)
    more = f"; best label {best}" if mistake.kind == "miss" else ""
    told = f"The clip has: {has}{more}. {clip.file.name}, from {mistake.start_seconds:g} s"
    return (
        f"<li><p><strong>{escape(mistake.label)}</strong> {verb}: {mistake.score:.3f}</p>"
        f'<p class="hint">{escape(told)}</p>'
        f"{_player(excerpt(clip, mistake.start_seconds, predictions.window_seconds))}</li>"
    )


def _player(sound: bytes | None) -> str:
    if sound is None:
        return "<p>The clip can no longer be read.</p>"
    encoded = base64.b64encode(sound).decode("ascii")
    return f'<audio controls preload="none" src="data:audio/ogg;base64,{encoded}"></audio>'


def _unreadable(unreadable: Sequence[str]) -> str:
    if not unreadable:
        return ""
    rows = "".join(f"<li>{escape(reason)}</li>" for reason in unreadable)
    return f"<section><h2>{len(unreadable)} clips could not be read</h2><ul>{rows}</ul></section>"
