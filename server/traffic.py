"""Which model answers a request that names none: shares of the traffic, the same model for the same request id."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256


@dataclass(frozen=True)
class TrafficSplit:
    """Shares by model name, of any sum: 90 and 10 mean what 0.9 and 0.1 do."""

    shares: Mapping[str, float] = field(default_factory=dict)

    def choose(self, request_id: str, served: Collection[str]) -> str | None:
        """The model of this request; None where no model with a share is served.

        A hash of the id decides, so every step of a request, and a repetition under the same id, meets the same model.
        A model that is not served leaves its share to the others.
        """
        shares = self.shares_of(served)
        if not shares:
            return None
        place = hash_to_unit(request_id)
        for name, share in shares.items():
            place -= share
            if place < 0:
                return name
        return next(reversed(shares))  # rounding took the place past the last share

    def shares_of(self, served: Collection[str]) -> dict[str, float]:
        """The served models' shares, which add up to 1."""
        shares = {name: share for name, share in self.shares.items() if name in served}
        total = sum(shares.values())
        return {name: share / total for name, share in shares.items()}


def hash_to_unit(text: str) -> float:
    """A number in [0, 1) that looks random and depends on the text alone."""
    return int.from_bytes(sha256(text.encode()).digest()[:6]) / 2**48
