"""The budget gives way at once and comes back slowly, more slowly after each growth that was too much."""

from server.batch_budget import MOST_PATIENCE_BATCHES, PATIENCE_BATCHES, BatchBudget


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
    run_full(budget, PATIENCE_BATCHES - 1)
    assert budget.windows == 8
    run_full(budget, 1)
    assert budget.windows == 10
    run_full(budget, 100 * PATIENCE_BATCHES)
    assert budget.windows == 16


def test_one_shortage_that_halves_again_and_again_costs_no_patience() -> None:
    budget = BatchBudget(64)
    for _ in range(20):
        budget.shrink(budget.windows)
    run_full(budget, PATIENCE_BATCHES)
    assert budget.windows == 2


def test_a_growth_that_did_not_fit_is_tried_again_later_than_before() -> None:
    budget = BatchBudget(16)
    budget.shrink(16)
    for patience in (PATIENCE_BATCHES, 2 * PATIENCE_BATCHES, 4 * PATIENCE_BATCHES):
        run_full(budget, patience - 1)
        assert budget.windows == 8
        run_full(budget, 1)
        assert budget.windows == 10
        budget.shrink(16)  # 10 was too many
        budget.windows = 8


def test_the_patience_has_an_end() -> None:
    budget = BatchBudget(4)
    for _ in range(40):
        budget.shrink(4)
        run_full(budget, MOST_PATIENCE_BATCHES)
        assert budget.windows > 2
