"""How many windows a batch may hold on one device: halved when memory runs out, and slowly grown back."""

PATIENCE_BATCHES = 32  # full batches that must pass before the budget grows; doubled when it grew too far
MOST_PATIENCE_BATCHES = 1024


class BatchBudget:
    """At most `most` windows, the setting's audio-seconds in windows; used by one worker thread."""

    def __init__(self, most: int) -> None:
        self.windows = most
        self._most = most
        self._patience = PATIENCE_BATCHES
        self._passed = 0
        self._grown = False

    def shrink(self, failed: int) -> None:
        """A batch of `failed` windows did not fit: half of it may be tried."""
        half = max(1, failed // 2)
        if self._grown and half < self.windows:  # what it had grown to does not fit: try that again later than before
            self._patience = min(MOST_PATIENCE_BATCHES, 2 * self._patience)
            self._grown = False
        self.windows = min(self.windows, half)
        self._passed = 0

    def grow(self, ran: int) -> None:
        """A batch of `ran` windows fitted: after many full ones, a quarter more may be tried."""
        if self.windows == self._most or ran < self.windows:
            return
        self._passed += 1
        if self._passed >= self._patience:
            self.windows = min(self._most, self.windows + max(1, self.windows // 4))
            self._passed, self._grown = 0, True
