"""What senders are told of their sendings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jq_actors import JobCommand
from jq_actors.errors import SendError


class Tally:
    """Keeps what was returned and what was raised; for several threads."""

    def __init__(self) -> None:
        self.returned: list[str] = []
        """The jobs whose sending returned."""
        self.raised: list[SendError] = []

    @property
    def count(self) -> int:
        """How many jobs were tried so far."""
        return len(self.returned) + len(self.named_by(SendError))

    @contextmanager
    def told(self) -> Iterator[list[JobCommand[object]]]:
        """Send inside, and add what is returned to the list. Other errors than those of sending come out."""
        sent: list[JobCommand[object]] = []
        try:
            yield sent
        except SendError as error:
            self.raised.append(error)
        else:
            self.returned += [command.job_id for command in sent]

    def named_by(self, *kinds: type[SendError]) -> list[str]:
        """The jobs that errors of these classes name."""
        return [job_id for error in tuple(self.raised) if isinstance(error, kinds) for job_id in error.job_ids]
