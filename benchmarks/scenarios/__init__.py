"""The scenarios: one a file, each a list of rows and the targets of DESIGN §14 that they decide."""

from .groups import GROUPS
from .latency import LATENCY
from .noop import NOOP
from .scenario import Row, Scenario
from .sleep import SLEEP

SCENARIOS: tuple[Scenario, ...] = (NOOP, SLEEP, LATENCY, GROUPS)

__all__ = ["SCENARIOS", "Row", "Scenario"]
