"""How far to trust the cost model at the door: by what factor answers come later than it predicted, learnt online."""

import time

LEAST = 1.25  # a quarter of the time is for what the model does not see: decoding, threads, the way back
MOST = 4.0
RAISE = 1.1  # by each answer that came later still
HALF_LIFE_SECONDS = 10.0  # of what is above the least; a trouble that has passed is forgotten
WORTH_LEARNING_SECONDS = 0.1  # of shorter predictions the noise is the greater part


class Caution:
    """The factor between the prediction of a first window's answer and when it is there at the latest."""

    def __init__(self) -> None:
        self._excess = 0.0
        self._changed = time.monotonic()

    @property
    def factor(self) -> float:
        """At least `LEAST`, at most `MOST`."""
        age = time.monotonic() - self._changed
        return LEAST + self._excess * 0.5 ** (age / HALF_LIFE_SECONDS)

    def observe(self, predicted_seconds: float, actual_seconds: float) -> None:
        """Takes in one answer, or the lack of one until its deadline."""
        factor = self.factor
        if predicted_seconds >= WORTH_LEARNING_SECONDS and actual_seconds > factor * predicted_seconds:
            self._excess = min(MOST, RAISE * factor) - LEAST
            self._changed = time.monotonic()
