"""The collector of a worker process, as it was and as it is set."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from jq_actors.process.garbage import YOUNG, collect_less_often


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.usefixtures("thresholds")
@pytest.mark.parametrize(
    ("before", "after"),
    [((700, 10, 10), YOUNG), ((0, 10, 10), 0), ((5 * YOUNG, 10, 10), 5 * YOUNG)],
    ids=["Python's own", "switched off", "set higher"],
)
def test_it_looks_less_often_unless_the_application_has_set_it(before: tuple[int, int, int], after: int) -> None:
    gc.set_threshold(*before)
    gc.unfreeze()
    collect_less_often()
    assert gc.get_threshold()[0] == after
    assert gc.get_threshold()[1:] == before[1:]
    assert gc.get_freeze_count() > 0
