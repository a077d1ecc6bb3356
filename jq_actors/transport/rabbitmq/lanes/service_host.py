"""What the service of a lane asks of the lobby that it runs in."""

from __future__ import annotations

from typing import Protocol, TypeVar

from jq_actors.model.lane import Fairness
from jq_actors.transport.port import Deliver, QueueDepth

Service = TypeVar("Service", contravariant=True)


class ServiceHost(Protocol[Service]):
    """The lobby of the lane's queue, in this worker."""

    fairness: Fairness
    """How long a lane is served while others wait."""
    deliver: Deliver
    """Takes deliveries."""
    is_stopped: bool
    """Whether this worker serves no more lanes."""
    served: int
    """How many lanes it serves."""

    @property
    def has_free_slot(self) -> bool:
        """Whether this worker could serve one more lane."""
        ...

    def others_serving(self, service: Service) -> int:
        """How many other services in this worker are for the same lane."""
        ...

    def fell_quiet(self, service: Service) -> None:
        """The lane of ``service`` has no work at the moment."""
        ...

    def recent_depth(self) -> QueueDepth | None:
        """The last look at the lobby, if it is recent enough to decide by."""
        ...

    async def depth(self) -> QueueDepth | None:
        """Look at the lobby, unless the last look is recent enough. Raises TransportError, TimeoutError."""
        ...
