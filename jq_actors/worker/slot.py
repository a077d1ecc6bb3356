"""The slot that a delivery is led in, as the executor sees it."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol


class Slot(Protocol):
    """A place to run in, as the one who gives it to a delivery shows it."""

    @property
    def name(self) -> str:
        """What fits there is known by it (`JobStore.fits`)."""
        ...

    @property
    def others_wait(self) -> bool:
        """Whether other deliveries wait for it."""
        ...

    @property
    def may_hold(self) -> bool:
        """Whether one more delivery may be held, for those that run there."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether a job may still start there."""
        ...

    def hold(self, time: timedelta) -> bool:
        """Do not run now: offer the delivery again after that time. Whether this is the first time."""
        ...

    def free(self) -> None:
        """It is not needed any more. A second call does nothing."""
        ...
