"""What the service of a lane asks of the place where it is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from jq_actors.model.lane import Fairness
from jq_actors.transport.port import Deliver, QueueDepth

if TYPE_CHECKING:
    from .service import Service


class Room(Protocol):
    """Where a lane is served: the lobby of its queue, in this worker."""

    @property
    def fairness(self) -> Fairness:
        """How long a lane is served while others wait."""
        ...

    @property
    def deliver(self) -> Deliver:
        """Takes deliveries."""
        ...

    @property
    def has_free(self) -> bool:
        """Whether this worker could serve one more lane."""
        ...

    @property
    def is_stopped(self) -> bool:
        """Whether this worker serves no more."""
        ...

    @property
    def served(self) -> int:
        """How many lanes it serves."""
        ...

    def others_serving(self, service: Service) -> int:
        """How many other services here are for the same lane."""
        ...

    def fell_quiet(self, service: Service) -> None:
        """Its lane has no work at the moment."""
        ...

    def recent_depth(self) -> QueueDepth | None:
        """The last look at the lobby, if it is new enough to decide by."""
        ...

    async def depth(self) -> QueueDepth | None:
        """A look at the lobby that is new enough. Raises TransportError, TimeoutError."""
        ...
