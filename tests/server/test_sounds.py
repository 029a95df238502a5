"""Sounds gathered window by window: what they keep in memory meanwhile."""

import weakref
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from server.sounds import Together, _hear
from server.tagging import HeardWindow, UploadTagger


@pytest.mark.anyio
async def test_a_window_does_not_keep_the_batch_that_it_was_in() -> None:
    """A window's logits are a row of its batch: a long sound among many callers kept every batch until its end."""
    batches: list[weakref.ref[np.ndarray[Any, Any]]] = []

    async def windows() -> AsyncIterator[HeardWindow]:
        for second in range(4):
            batch = np.full((64, 5), second, np.float32)
            batches.append(weakref.ref(batch))
            yield HeardWindow(second, second + 1, batch[0], batch[1], np.zeros(0, np.float32))
        assert [batch() is None for batch in batches[:2]] == [True, True]  # the last are in loops' variables

    tagger = cast(UploadTagger, SimpleNamespace(windows=windows, own=None, timings=None))
    sound = await _hear(0, tagger, 1, Together(60))
    assert sound.logits[:, 0].tolist() == sound.embeddings[:, 0].tolist() == [0, 1, 2, 3]
