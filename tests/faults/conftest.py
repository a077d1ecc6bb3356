"""Sites to break, and what every fault test is checked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.rabbitmq import PrivateRabbitMQ

from .site import Site, StartWorker

MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(
    private_rabbitmq: PrivateRabbitMQ,
    database_url: str,
    amqp_namespace: str,
    tmp_path: Path,
    start_worker: StartWorker,
) -> Iterator[MakeSite]:
    """``make_site(store_url=…, broker={…}, persistence={…}, worker={…}, queues={…}) -> Site``."""
    with ExitStack() as stack:

        def make(*, store_url: str | None = database_url, **settings: Any) -> Site:
            site = Site(tmp_path, start_worker, private_rabbitmq, amqp_namespace, store_url, database_url, **settings)
            stack.callback(site.close)
            return site

        yield make


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """A site with rows and default settings."""
    return make_site()
