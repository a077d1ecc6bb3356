"""How commands travel: one port, two adapters (`rabbitmq`, `embedded`), one conformance suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .port import Transport

if TYPE_CHECKING:
    from ..clock import Clock
    from ..config import BrokerConfig
    from ..events import Events


def open_transport(config: BrokerConfig, clock: Clock, events: Events, *, has_store: bool) -> Transport:
    """The adapter for the URL of ``config``; on the I/O loop, not yet started."""
    if config.url.startswith("embedded:"):
        from .embedded import EmbeddedTransport

        return EmbeddedTransport(config, clock, events, has_store=has_store)
    from .rabbitmq import RabbitTransport

    return RabbitTransport(config, clock, events)
