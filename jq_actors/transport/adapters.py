"""How commands travel: one port, two adapters (`rabbitmq`, `embedded`), one conformance suite."""

from __future__ import annotations

from typing import Protocol

from jq_actors.clock import Clock
from jq_actors.config.settings import BrokerConfig
from jq_actors.events import Events

from .port import Transport


class MakeTransport(Protocol):
    """Makes an adapter, on the I/O loop, and does not start it."""

    def __call__(self, config: BrokerConfig, clock: Clock, events: Events, *, has_store: bool) -> Transport:
        """Make the adapter."""
        ...


def adapter_for(url: str) -> MakeTransport:
    """The adapter for a broker's URL. Importing it is slow: do not call this on a loop."""
    if url.startswith("embedded:"):
        from jq_actors.transport.embedded.transport import EmbeddedTransport

        return EmbeddedTransport
    from .rabbitmq import RabbitTransport

    return lambda config, clock, events, *, has_store: RabbitTransport(config, clock, events)
