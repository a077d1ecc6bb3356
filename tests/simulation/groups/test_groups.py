"""Groups led by their rows hold: in no small system a property is broken, and every fair run ends."""

from __future__ import annotations

import pytest

from .configurations import configurations
from .model import check
from .system import System


@pytest.mark.timeout(600)
@pytest.mark.parametrize("system", configurations(), ids=lambda system: system.name)
def test_it_holds(system: System) -> None:
    report = check(system)
    assert report.violation is None, str(report.violation)
