"""How many windows a batch may hold on one device: halved when memory runs out, and slowly grown back."""

PATIENCE_BATCHES = 32  # full batches that must pass before the budget grows; doubled by every shortage


class BatchBudget:
    """At most `most` windows, the setting's audio-seconds in windows; used by one worker thread."""

    def __init__(self, most: int) -> None:
        self.windows = most
        self._most = most
        self._patience = PATIENCE_BATCHES
        self._passed = 0

    def shrink(self, failed: int) -> None:
        """A batch of `failed` windows did not fit: half of it may be tried."""
        self.windows = min(self.windows, max(1, failed // 2))
        self._passed = 0
        self._patience *= 2

    def grow(self, ran: int) -> None:
        """A batch of `ran` windows fitted: after many full ones, a quarter more may be tried."""
        if self.windows == self._most or ran < self.windows:
            return
        self._passed += 1
        if self._passed >= self._patience:
            self.windows = min(self._most, self.windows + max(1, self.windows // 4))
            self._passed = 0
