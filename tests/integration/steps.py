"""Jobs of groups that leave a note, for tests of what an operator does to groups."""

from __future__ import annotations

from collections import defaultdict

from jq_actors import JobId, actor, current_job


class Steps:
    """An actor of the running application: what ran of it, by group. While ``broken``, its jobs fail for good."""

    def __init__(self) -> None:
        self.ran: defaultdict[str, list[int]] = defaultdict(list)
        self.broken = False

        @actor(actor_name="step", max_retries=0)
        async def step(number: int) -> None:
            if self.broken:
                raise ValueError("on purpose")
            self.ran[current_job().group or ""].append(number)

        self._step = step

    def send(self, group: str, *numbers: int) -> list[JobId]:
        """Send jobs with these numbers to ``group``; returns their ids."""
        return [self._step.send_with_options(args=(number,), group=group).job_id for number in numbers]
