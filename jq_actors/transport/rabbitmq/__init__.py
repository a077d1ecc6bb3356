"""The transport on RabbitMQ."""

from __future__ import annotations

from .transport import RabbitTransport

__all__ = ["RabbitTransport"]
