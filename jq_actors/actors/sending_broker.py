"""What an actor needs of its broker; the process's `JobBroker` is the only one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import dramatiq

from jq_actors.clock import Clock
from jq_actors.config.settings import Config
from jq_actors.model.command import JobCommand


class SendingBroker(dramatiq.Broker, ABC):
    """A ``dramatiq.Broker`` with a configuration, that sends commands."""

    clock: Clock

    @property
    @abstractmethod
    def stores_rows(self) -> bool:
        """Whether each job that is sent gets a row, which its command then promises to the worker."""

    @abstractmethod
    def resolve(self) -> Config:
        """The configuration, read at the first call.

        Raises:
          ConfigError: lists all of its problems.
        """

    @abstractmethod
    def send(self, commands: Sequence[JobCommand[Any]]) -> None:
        """Send ``commands``; returns when they are safe.

        Raises:
          SendError: its class says what is known of them.
          RuntimeStateError: called on the I/O loop.
        """

    @abstractmethod
    async def send_async(self, commands: Sequence[JobCommand[Any]]) -> None:
        """`send` for a coroutine of any loop. A cancelled caller does not interrupt the sending."""
