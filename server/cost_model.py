"""How long a batch takes: seconds = per_batch + per_window * windows, fitted online to the batches that ran.

The linear form follows bentoml/BentoML:src/bentoml/_internal/marshal/dispatcher.py (time = a*n + b); the fit is ours.
"""

import math

FADE = 0.95  # weight of the past after each batch: about the last 20 batches count


class CostModel:
    """Exponentially fading least squares over (windows, seconds) of the batches observed."""

    def __init__(self) -> None:
        self._weight = self._windows = self._windows_squared = self._seconds = self._product = 0.0
        self._coefficients = 0.0, 0.0

    def observe(self, windows: int, seconds: float) -> None:
        """Takes one finished batch into the fit."""
        self._weight = FADE * self._weight + 1
        self._windows = FADE * self._windows + windows
        self._windows_squared = FADE * self._windows_squared + windows * windows
        self._seconds = FADE * self._seconds + seconds
        self._product = FADE * self._product + windows * seconds
        self._coefficients = self._fit()

    def coefficients(self) -> tuple[float, float]:
        """The fitted (seconds per batch, seconds per window), both at least 0; (0, 0) before the first batch."""
        return self._coefficients

    def _fit(self) -> tuple[float, float]:
        mean_windows, mean_seconds = self._windows / self._weight, self._seconds / self._weight
        variance = self._windows_squared / self._weight - mean_windows**2
        if variance < 1e-6 * mean_windows**2:  # batches of one size tell no slope
            return 0.0, mean_seconds / mean_windows
        slope = (self._product / self._weight - mean_windows * mean_seconds) / variance
        intercept = mean_seconds - slope * mean_windows
        if slope < 0:
            return mean_seconds, 0.0
        if intercept < 0:
            return 0.0, mean_seconds / mean_windows
        return intercept, slope

    @property
    def is_linear(self) -> bool:
        """Whether one more window costs more than one more batch, so that large batches gain little."""
        per_batch, per_window = self._coefficients
        return per_window > per_batch

    def predict(self, windows: int, batch_windows: int) -> float:
        """Seconds that `windows` take in batches of at most `batch_windows`."""
        per_batch, per_window = self._coefficients
        return math.ceil(windows / batch_windows) * per_batch + windows * per_window
