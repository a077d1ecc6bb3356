"""Explore one system and tell what was found."""

from __future__ import annotations

from .explorer import Report, explore
from .model import ClaimModel
from .system import System


def check(system: System) -> Report:
    """Explore ``system``; prints its size, and the violation with its trace."""
    report = explore(ClaimModel(system))
    print(f"{system.name}: {report.states} states, {report.steps} steps")
    if report.violation is not None:
        print(report.violation)
    return report
