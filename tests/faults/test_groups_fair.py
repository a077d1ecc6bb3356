"""A tenant with one job beside tenants with very many: it does not wait for them."""

from __future__ import annotations

from typing import Any

import pytest

from .breaker import SETTINGS, WORKERS
from .conftest import MakeSite
from .order import group_of
from .site import Sending, Site
from .steps import PATIENCE, sized, wait_until_ended

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(sized(90, 300))]

QUANTUM, THREADS = 50, 2
LARGE, SMALL, CHUNK = sized(3600, 20_000), sized(3, 10), 100


@pytest.mark.parametrize(
    ("tenants", "concurrency"),
    [
        pytest.param(1, 100, id="room for others"),
        # One coroutine and its threads: so many lanes are served at once by each worker.
        pytest.param(WORKERS * (1 + THREADS), 1, id="no room for others"),
    ],
)
def test_one_job_starts_soon_beside_very_many(make_site: MakeSite, tenants: int, concurrency: int) -> None:
    """Without room, a large group has to make some: after its quantum, and not before."""
    groups = {"quantum": QUANTUM, "time_slice": "10m"}
    site = make_site(**{**SETTINGS, "groups": groups}, queues={"work": {"concurrency": concurrency}})
    with site.sending() as sending, site.workers(WORKERS, threads=THREADS):
        for first in range(0, LARGE // tenants, CHUNK):
            calls: list[Any] = [((tenant, first + n), {}) for n in range(CHUNK) for tenant in range(tenants)]
            sending.actors.step.send_many(calls)
        wait_until_ended(site, 2 * tenants)
        passed = [send_one(site, sending, tenant) for tenant in range(tenants, tenants + SMALL)]
        assert site.rows.states()["waiting"] > tenants * QUANTUM, "the large groups were not large enough"
    # At the latest, each turn of a large group had just begun.
    assert max(passed) <= tenants * (QUANTUM + 1)


def send_one(site: Site, sending: Sending, tenant: int) -> int:
    """Send the only job of ``tenant``; returns how many of others began before it did."""
    sent_at = site.journal.now()
    job_id = sending.actors.step.send(tenant, 0).job_id
    site.rows.wait_for_state([job_id], "succeeded", PATIENCE)
    [started] = [run.started for run in site.journal.by_job()[job_id]]
    passed = sum(sent_at <= run.started < started for run in site.journal.runs() if group_of(run) != tenant)
    print(f"it began {(started - sent_at).total_seconds():.3f} s after it was sent, and {passed} others before it")
    return passed
