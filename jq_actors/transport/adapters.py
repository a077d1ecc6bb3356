"""How commands travel: one port, two adapters (`rabbitmq`, `embedded`), one conformance suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .port import Transport

if TYPE_CHECKING:
    from jq_actors.clock import Clock
    from jq_actors.config.loading import BrokerConfig
    from jq_actors.events import Events


class MakeTransport(Protocol):
    """Makes an adapter; on the I/O loop. It is not yet started."""

    def __call__(self, config: BrokerConfig, clock: Clock, events: Events, *, has_store: bool) -> Transport:
        """Make it."""
        ...


def adapter_for(url: str) -> MakeTransport:
    """The adapter for a broker's URL. Imports it, which takes its time: not on a loop."""
    if url.startswith("embedded:"):
        from jq_actors.transport.embedded.transport import EmbeddedTransport

        return EmbeddedTransport
    from .rabbitmq import RabbitTransport

    return lambda config, clock, events, *, has_store: RabbitTransport(config, clock, events)
