"""A producer dies when its jobs are stored and the broker does not have them yet: they run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import psycopg
import pytest

from tests.support.proxy import TcpProxy
from tests.support.workers import WorkerProcess

from . import dying_producer
from .site import Site

pytestmark = [pytest.mark.broker, pytest.mark.database, pytest.mark.timeout(90)]

MakeProxy = Callable[[str], TcpProxy]


def produce(site: Site, how: str, count: int, url: str | None = None) -> WorkerProcess:
    return site.run("python", "-m", dying_producer.__name__, how, str(count), url=url)


def stored(site: Site) -> int:
    with contextlib.suppress(psycopg.errors.UndefinedTable):
        return site.rows.states().total()
    return 0


def check_that_each_ran_once(site: Site, count: int) -> None:
    assert site.rows.wait_for_end(count, 30) == {"succeeded": count}
    site.wait_until_queues_are_empty()
    runs = site.journal.by_job()
    assert runs.keys() == site.rows.jobs().keys()
    assert {len(of_job) for of_job in runs.values()} == {1}
    assert {(job.attempt, job.dispatch) for job in site.rows.jobs().values()} == {(1, 1)}


@pytest.mark.parametrize("count", [1, 50])
def test_it_exits_before_it_publishes(site: Site, count: int) -> None:
    producer = produce(site, "exits", count)

    assert producer.wait(30) == 9, producer.text
    assert site.rows.states() == {"queued": count}
    assert not any(job.published for job in site.rows.jobs().values())
    with site.workers(1):
        check_that_each_ran_once(site, count)


def test_it_is_killed_while_the_broker_is_mute(site: Site, tcp_proxy: MakeProxy) -> None:
    """What it had written may still arrive: a second copy, which must not run."""
    proxy = tcp_proxy(site.server.url)
    with site.workers(1):
        producer = produce(site, "hangs", 50, proxy.url(site.server.url))
        producer.wait_for_line("^connected")
        proxy.freeze()
        (site.folder / dying_producer.GO).touch()
        producer.wait_for_line("^sent")  # with the rows committed nobody waits for the broker
        assert stored(site) == 50
        producer.kill()

        site.rows.wait_for_end(50, 30)
        proxy.thaw()
        check_that_each_ran_once(site, 50)
