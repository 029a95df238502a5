"""Charts of the evaluation report as inline SVG; colours come from the page's style, in light and in dark.

Every chart is a unit square: x and y from 0 to 1.
"""

from collections.abc import Iterable
from html import escape

import numpy as np

from model.training.metrics import Calibration, PrecisionRecall

MOST_POINTS = 80
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_SIZE = 300
_SMALL = 100


def precision_recall_chart(curves: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> str:
    """Named curves of (recall, precision), each (points,), in one frame with a legend."""
    body, legend = [], []
    for index, (name, recall, precision) in enumerate(curves):
        body.append(f'<path class="curve curve-{index}" d="{_path(recall, precision, _SIZE)}"/>')
        legend.append(f'<text class="legend curve-{index}" x="12" y="{_SIZE - 30 + 18 * index}">{escape(name)}</text>')
    return _frame("recall", "precision", "".join(body + legend))


def small_curve(curve: PrecisionRecall, point: tuple[float, float] | None) -> str:
    """One class's curve without words, with a dot where its threshold puts it: (recall, precision)."""
    area = f"{_path(curve.recall, curve.precision, _SMALL)}L{_x(curve.recall[-1], _SMALL)} {_SMALL}L0 {_SMALL}Z"
    dot = ""
    if point is not None:
        dot = f'<circle class="dot" cx="{_x(point[0], _SMALL)}" cy="{_y(point[1], _SMALL)}" r="4"/>'
    return (
        f'<svg viewBox="-4 -4 {_SMALL + 8} {_SMALL + 8}" aria-hidden="true">'
        f'<rect class="ground" width="{_SMALL}" height="{_SMALL}"/><path class="area" d="{area}"/>'
        f'<path class="curve curve-0" d="{_path(curve.recall, curve.precision, _SMALL)}"/>{dot}</svg>'
    )


def reliability_chart(measured: Calibration) -> str:
    """How often scores were right, a bar per bin, beside the diagonal of perfect calibration."""
    bins = len(measured.counts)
    bars = []
    for index, (count, score, right) in enumerate(
        zip(measured.counts, measured.mean_score, measured.share_right, strict=True)
    ):
        if count:
            at = f'cx="{_x(score, _SIZE)}" cy="{_y(right, _SIZE)}"'
            told = f"{count} scores around {score:.2f}: {right:.0%} right"
            bars.append(
                f'<rect class="bar" x="{_x(index / bins, _SIZE)}" y="{_y(right, _SIZE)}" '
                f'width="{_SIZE / bins - 2:.1f}" height="{right * _SIZE:.1f}"><title>{told}</title></rect>'
                f'<circle class="dot" {at} r="4"><title>{told}</title></circle>'
            )
    diagonal = f'<path class="diagonal" d="M0 {_SIZE}L{_SIZE} 0"/>'
    return _frame("score", "share that is right", "".join(bars) + diagonal)


def mean_curve(curves: Iterable[PrecisionRecall]) -> tuple[np.ndarray, np.ndarray]:
    """(recall, precision) averaged over classes: at each recall, the best precision with at least that much recall."""
    recall = np.linspace(0, 1, 51)
    rows = []
    for curve in curves:
        best_from_here = np.maximum.accumulate(curve.precision[::-1])[::-1]
        rows.append(best_from_here[np.searchsorted(curve.recall, recall - 1e-9)])
    return recall, np.mean(rows, axis=0)


def _frame(x_label: str, y_label: str, body: str) -> str:
    grid = "".join(
        f'<path class="grid" d="M{_x(at, _SIZE)} 0V{_SIZE}M0 {_y(at, _SIZE)}H{_SIZE}"/>'
        f'<text class="tick" x="{_x(at, _SIZE)}" y="{_SIZE + 18}" text-anchor="middle">{at:g}</text>'
        f'<text class="tick" x="-8" y="{float(_y(at, _SIZE)) + 4:.1f}" text-anchor="end">{at:g}</text>'
        for at in _TICKS
    )
    names = (
        f'<text class="axis" x="{_SIZE / 2}" y="{_SIZE + 38}" text-anchor="middle">{x_label}</text>'
        f'<text class="axis" transform="translate(-42 {_SIZE / 2})rotate(-90)" text-anchor="middle">{y_label}</text>'
    )
    return f'<svg class="chart" viewBox="-56 -10 {_SIZE + 70} {_SIZE + 56}" role="img">{grid}{body}{names}</svg>'


def _path(recall: np.ndarray, precision: np.ndarray, size: int) -> str:
    """A line through at most about MOST_POINTS points: where recall grows, and where precision then stops falling."""
    grows = np.diff(recall) > 0
    corners = np.flatnonzero(np.concatenate(([True], grows)) | np.concatenate((grows, [True])))
    chosen = corners[np.unique(np.linspace(0, len(corners) - 1, min(len(corners), MOST_POINTS)).round().astype(int))]
    points = [f"{_x(recall[i], size)} {_y(precision[i], size)}" for i in chosen]
    start = f"0 {_y(precision[chosen[0]], size)}"  # a curve begins at no recall
    return "M" + "L".join([start, *points])


def _x(value: float, size: int) -> str:
    return f"{value * size:.1f}"


def _y(value: float, size: int) -> str:
    return f"{(1 - value) * size:.1f}"
