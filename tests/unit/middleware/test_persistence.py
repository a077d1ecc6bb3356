"""The options of `persistence`: what is allowed, and how a mistake is told."""

from __future__ import annotations

import traceback
from datetime import timedelta
from typing import Any

import pytest

from jq_actors.store.records import Leases, Retention
from jq_middleware.persistence import Persistence

URL = "sqlite+aiosqlite:///jobs.db"


def test_the_defaults_are_those_of_the_protocol() -> None:
    persistence = Persistence(url=URL)

    assert persistence.leases == Leases()
    assert persistence.relay_interval == timedelta(seconds=1)
    assert persistence.on_broker_down == "store"
    assert persistence.brings_store


def test_options_become_the_times_of_the_protocol() -> None:
    persistence = Persistence(
        url=URL, publish_lease="5s", max_crashes=1, relay_interval=250, on_broker_down="raise", max_result_size="2M"
    )

    assert persistence.leases.publish == timedelta(seconds=5)
    assert persistence.leases.max_crashes == 1
    assert persistence.relay_interval == timedelta(milliseconds=250)
    assert persistence.on_broker_down == "raise"
    assert persistence.max_result_size == 2 << 20


def test_retention_is_by_state_and_the_rest_keeps_its_default() -> None:
    persistence = Persistence(url=URL, retention={"succeeded": "1h", "failed": None, "cancelled": 0})

    assert persistence.leases.retention == Retention(timedelta(hours=1), None, timedelta(), timedelta(days=7))


@pytest.mark.parametrize(
    "url",
    [
        URL,
        "sqlite+aiosqlite:////var/lib/jobs.db",
        "postgresql+asyncpg://user:secret@db.example:5432/jobs",
        "postgresql+psycopg:///jobs",
    ],
)
def test_the_databases_that_the_store_knows(url: str) -> None:
    assert Persistence(url=url).url == url


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"url": 5}, "url must be a text such as"),
        ({"url": "jobs.db"}, "url must be a database URL such as"),
        ({"url": "sqlite:///jobs.db"}, "must begin with one of sqlite.aiosqlite://"),
        ({"url": "mysql+aiomysql://db/jobs"}, "must begin with one of sqlite.aiosqlite://"),
        ({"url": "sqlite+aiosqlite://"}, "must name a database"),
        ({"url": "sqlite+aiosqlite:///:memory:"}, "must name a database"),
        ({"jobs_table": "Orm Jobs"}, "jobs_table must be 1 to 40 of"),
        ({"jobs_table": "9jobs"}, "jobs_table must be 1 to 40 of"),
        ({"jobs_table": "j" * 41}, "jobs_table must be 1 to 40 of"),
        ({"retention": "1d"}, "retention must be a mapping"),
        ({"retention": {"running": "1d"}}, "retention has no state 'running'; final states are succeeded"),
        ({"retention": {"failed": "long"}}, "retention.failed: 'long' is not a duration"),
        ({"auto_migrate": "no"}, "auto_migrate must be true or false"),
        ({"relay_interval": 10}, "relay_interval must be at least 50ms"),
        ({"publish_lease": "10ms"}, "publish_lease must be at least 1s"),
        ({"max_crashes": 0}, "max_crashes must be a whole number of at least 1"),
        ({"on_broker_down": "wait"}, "on_broker_down must be one of store, raise"),
        ({"pool_size": 0}, "pool_size must be a whole number from 1 to 100"),
        ({"max_result_size": ""}, "max_result_size: '' is not a size"),
        ({"max_result_size": 10}, "max_result_size must be from 1024 to 67108864 bytes, not 10"),
        ({"max_result_size": 1.5}, "max_result_size must be a size such as 1MiB"),
    ],
)
def test_an_impossible_option_is_named_with_what_is_allowed(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Persistence(**{"url": URL, **options})


@pytest.mark.parametrize(
    "url",
    [
        "postgres://u:hunter2@db/jobs",
        "postgresql+asyncpg://u:x@db:hunter2/jobs",
        "u:hunter2@db",
        "://u:hunter2@",
    ],
)
def test_a_password_is_in_no_message(url: str) -> None:
    with pytest.raises(ValueError, match="url") as caught:
        Persistence(url=url)

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
