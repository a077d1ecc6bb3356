"""`current_job`: where it is, and where it is not."""

from __future__ import annotations

import pytest

from jq_actors.current import current_job
from jq_actors.errors import RuntimeStateError


def test_outside_of_a_job_there_is_none() -> None:
    with pytest.raises(RuntimeStateError, match="outside of a job"):
        current_job()
