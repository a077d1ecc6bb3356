"""A job that waits behind long ones, on a queue that buries what comes back too often."""

from __future__ import annotations

import threading

from jq_actors import actor
from jq_actors.events import DeliveryBuried, DeliveryRenewed
from tests.support.application import Place, running


def test_a_job_that_waits_for_long_is_not_buried_for_it(rabbit_alone: Place) -> None:
    """Without rows: there is no other copy of it."""
    limits = {"queue_type": "quorum", "delivery_limit": 1, "delivery_timeout": "1500ms"}
    configuration = {**rabbit_alone.configuration, "broker": {**rabbit_alone.configuration["broker"], **limits}}
    is_enough, ran = threading.Event(), list[str]()

    with running(configuration) as app:
        app.record(DeliveryRenewed, DeliveryBuried)

        @actor
        async def never() -> None: ...

        @actor
        def step(name: str) -> None:
            if name == "long":
                is_enough.wait(60)
            ran.append(name)

        with app.worker(threads=1):
            # Before RabbitMQ 4.3 only our own limit is so low. 4.3 takes the long one back, and it runs once more:
            # without rows nobody knows that it has ended.
            step.send("long")
            step.send("short")
            app.wait(lambda: len(app.of(DeliveryRenewed)) >= 4, "the one that waits to be renewed", timeout=60)
            is_enough.set()
            app.wait(lambda: ran[:2] == ["long", "short"], "both")
    assert app.of(DeliveryBuried) == []
