"""Work done ahead comes in order, is bounded, and its errors come where its results would."""

import threading

import pytest

from model.training.ahead import map_ahead


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    assert list(map_ahead(lambda item: item * 2, range(50), workers)) == [item * 2 for item in range(50)]
    assert list(map_ahead(lambda item: item, [], workers)) == []


def test_no_more_than_two_per_worker_are_made_before_they_are_taken() -> None:
    drawn: list[int] = []

    def items():  # type: ignore[no-untyped-def]
        for item in range(100):
            drawn.append(item)
            yield item

    results = map_ahead(lambda item: item, items(), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(drawn) <= 3 + 4
    results.close()  # type: ignore[attr-defined]


def test_an_error_comes_in_its_place_and_the_threads_end() -> None:
    results = map_ahead(lambda item: 1 // item, [1, 1, 0, 1], 2)
    assert next(results) == 1
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hark-reading")]
