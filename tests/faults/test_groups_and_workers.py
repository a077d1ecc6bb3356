"""Groups and the workers that share them: several for a group, and workers that join late or leave."""

from __future__ import annotations

from collections import Counter
from random import Random  # noqa: TID251 - seeded: the same jobs again

import pytest

from .breaker import SETTINGS, TAKES_JOBS, under_fire
from .conftest import MakeSite
from .order import by_group, check_ends, check_in_order, check_rows, most_at_once, place_of
from .site import Site
from .steps import PATIENCE, Fate, Steps, sized, wait_until_ended
from .supervisor import STOP_TIMEOUT

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(sized(120, 600))]

AT_ONCE = 3


def test_never_more_of_a_group_at_once_than_its_rule_allows(make_site: MakeSite) -> None:
    rules = {"rules": [{"match": "*", "concurrency": AT_ONCE}]}
    site, steps = make_site(**{**SETTINGS, "groups": rules}), Steps(10, sized(30, 200), _short)
    with under_fire(site, steps, ["kill", "lose queue", "kill", "lose queue", "terminate"]) as breaker:
        site.rows.wait_for_end(steps.count, PATIENCE)
        site.wait_until_queues_are_empty()
    check_ends(site, steps, breaker.deaths)
    check_rows(site, steps)
    most = {group: most_at_once(runs, breaker.deaths) for group, runs in by_group(site.journal.runs()).items()}
    assert set(most.values()) == {AT_ONCE}
    check_started_in_order(site)


def check_started_in_order(site: Site) -> None:
    """None began while as many before it as may run at once had not yet come to their ends."""
    for group, runs in by_group(site.journal.runs()).items():
        ends = {place_of(run): run.ended for run in runs}  # the last run of each counts
        for run in runs:
            before = [ends[place] for place in range(place_of(run))]
            assert sum(end is None or end > run.started for end in before) < AT_ONCE, f"{run} of group {group}"


def test_workers_that_join_have_their_share_and_those_that_leave_take_nothing_with_them(make_site: MakeSite) -> None:
    """The first one could run them all, and does, until there are others."""
    groups, quantum, alone = 200, 3, 8
    site = make_site(**{**SETTINGS, "groups": {"quantum": quantum}}, queues={"work": {"concurrency": groups + 50}})
    steps = Steps(groups, sized(40, 64), lambda _: Fate(seconds=0.1))
    with site.sending() as sending:
        steps.send(sending, 0, alone)
        first = site.start()
        wait_until_ended(site, groups)
        late = [site.start(), site.start()]
        for worker in late:
            worker.wait_for_line(TAKES_JOBS)
        # The rest is sent only now: the first may have run all that was there.
        steps.send(sending, alone, steps.each)
        # Each lane has changed hands twice, if it was to: then each has a third of them, more or less.
        wait_until_ended(site, groups * (alone + quantum * 2))
        runs_of = Counter(run.pid for run in site.journal.runs()[-groups * quantum :])
        print(f"of {groups * quantum} runs: {dict(runs_of)}")
        assert len(runs_of) == 1 + len(late)
        assert min(runs_of.values()) > groups * quantum / 10

        for worker in (first, late[0]):
            worker.terminate()
        left = steps.count - site.journal.ended()
        assert [worker.wait(STOP_TIMEOUT) for worker in (first, late[0])] == [0, 0]
        site.rows.wait_for_end(steps.count, PATIENCE)
        site.wait_until_queues_are_empty()
    assert left > 0
    check_in_order(site, steps, {})
    check_rows(site, steps)


def _short(chance: Random) -> Fate:
    return Fate(seconds=0.05 + chance.random() * 0.1, failures=int(chance.random() < 0.1))
