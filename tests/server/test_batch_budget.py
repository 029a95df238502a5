"""The budget gives way at once and comes back slowly, more slowly each time."""

from server.batch_budget import PATIENCE_BATCHES, BatchBudget


def run_full(budget: BatchBudget, batches: int) -> None:
    for _ in range(batches):
        budget.grow(budget.windows)


def test_halves_what_failed_and_never_falls_below_one() -> None:
    budget = BatchBudget(64)
    budget.shrink(40)
    assert budget.windows == 20
    budget.shrink(64)  # a batch that was taken before
    assert budget.windows == 20
    for _ in range(9):
        budget.shrink(budget.windows)
    assert budget.windows == 1


def test_grows_after_many_full_batches_only() -> None:
    budget = BatchBudget(16)
    budget.shrink(16)
    for _ in range(10 * PATIENCE_BATCHES):
        budget.grow(7)
    assert budget.windows == 8
    run_full(budget, 2 * PATIENCE_BATCHES - 1)
    assert budget.windows == 8
    run_full(budget, 1)
    assert budget.windows == 10
    run_full(budget, 100 * PATIENCE_BATCHES)
    assert budget.windows == 16


def test_every_shortage_doubles_the_patience() -> None:
    budget = BatchBudget(16)
    budget.shrink(16)
    budget.shrink(8)
    run_full(budget, 4 * PATIENCE_BATCHES - 1)
    assert budget.windows == 4
    run_full(budget, 1)
    assert budget.windows == 5
