"""Many groups while everything breaks: each group's jobs still run in order and one at a time, and none is lost.

A long run: JQ_TEST_GROUPS=full JQ_TEST_GROUPS_SEED=1 .venv/bin/pytest tests/faults/test_groups_under_fire.py -s
"""

from __future__ import annotations

import pytest

from .breaker import SETTINGS, under_fire, wait_for_ends
from .conftest import MakeSite
from .journal import overlaps
from .order import check_ends, check_first_ends_in_order, check_in_order, check_rows, group_of
from .steps import PATIENCE, Steps, sized

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(sized(150, 1200))]

EVERYTHING = ["kill", "terminate", "cut", "lose queue", "restart", "kill", "crash", "cut"]
FEW = ["kill", "terminate", "kill"][: sized(2, 3)]


@pytest.mark.parametrize(
    ("queue_type", "groups", "each", "faults"),
    [
        pytest.param("classic", sized(60, 300), sized(16, 40), EVERYTHING * sized(1, 3), id="everything"),
        pytest.param("quorum", sized(30, 60), sized(12, 20), ["kill", "cut", "restart"], id="quorum"),
        pytest.param("classic", sized(40, 300), sized(12, 40), ["wipe"], id="wiped"),
    ],
)
def test_with_rows(make_site: MakeSite, queue_type: str, groups: int, each: int, faults: list[str]) -> None:
    site, steps = make_site(**SETTINGS, broker={"queue_type": queue_type}), Steps(groups, each)
    with under_fire(site, steps, faults) as breaker:
        site.rows.wait_for_end(steps.count, PATIENCE)
        site.wait_until_queues_are_empty()
    check_in_order(site, steps, breaker.deaths)
    check_rows(site, steps)


def test_without_rows_workers_killed(make_site: MakeSite) -> None:
    """The broker alone keeps one at a time: a killed process has ended when its messages come again."""
    site, steps = make_site(**SETTINGS, store_url=None), Steps(sized(30, 300), 40)
    with under_fire(site, steps, ["kill", "kill", "terminate"], all_before=True) as breaker:
        wait_for_ends(site, steps)
        site.wait_until_queues_are_empty(but="dead")
    assert overlaps(site.journal.runs(), breaker.deaths, of=group_of) == []
    check_ends(site, steps, breaker.deaths)
    check_first_ends_in_order(site, steps)


def test_without_rows_connections_cut(make_site: MakeSite) -> None:
    """Here the job that ran goes on while another worker gets its message: the two may run at once.

    All are sent before: a sender whose connection is cut would not know what became of its jobs.
    """
    site, steps = make_site(**SETTINGS, store_url=None), Steps(sized(30, 300), 40)
    with under_fire(site, steps, ["cut", "kill", "cut"], all_before=True):
        wait_for_ends(site, steps)
        site.wait_until_queues_are_empty(but="dead")
    check_first_ends_in_order(site, steps)


@pytest.mark.parametrize("store", ["database_url", "sqlite_url"])
def test_embedded(make_site: MakeSite, request: pytest.FixtureRequest, store: str) -> None:
    """Several processes on one database: the rows are all that they have in common."""
    url = request.getfixturevalue(store)
    site = make_site(**SETTINGS, store_url=None, store_url_of_processes=url, broker={"url": "embedded://"})
    steps = Steps(sized(30, 300), sized(8, 40))
    with under_fire(site, steps, FEW) as breaker:
        wait_for_ends(site, steps)
    check_in_order(site, steps, breaker.deaths)
