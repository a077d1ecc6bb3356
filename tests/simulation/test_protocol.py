"""The protocol holds: in every configuration no property is broken, and every fair run ends with all jobs final."""

from __future__ import annotations

import pytest

from .checking import check
from .configurations import configurations
from .system import System


@pytest.mark.timeout(600)
@pytest.mark.parametrize("system", configurations(), ids=lambda system: system.name)
def test_it_holds(system: System) -> None:
    report = check(system)
    assert report.violation is None, str(report.violation)
