"""The part of the broker that actors use; the process's `JobBroker` implements it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import dramatiq

from jq_actors.clock import Clock
from jq_actors.config.settings import Config
from jq_actors.model.command import JobCommand


class SendingBroker(dramatiq.Broker, ABC):
    """A ``dramatiq.Broker`` that has a configuration and sends commands."""

    clock: Clock

    @property
    @abstractmethod
    def stores_rows(self) -> bool:
        """Whether each sent job gets a row; its command then promises that to the worker."""

    @abstractmethod
    def resolve(self) -> Config:
        """The configuration, read at the first call.

        Raises:
          ConfigError: the configuration is invalid; lists all problems.
        """

    @abstractmethod
    def send(self, commands: Sequence[JobCommand[Any]]) -> None:
        """Send ``commands``; return when they cannot be lost any more.

        Raises:
          SendError: its class says what is known about them.
          RuntimeStateError: called on the I/O loop.
        """

    @abstractmethod
    async def send_async(self, commands: Sequence[JobCommand[Any]]) -> None:
        """`send` for a coroutine on any loop. Cancelling the caller does not interrupt the sending."""
