"""Jobs in groups without rows, each group with its own queue on the broker: the cost of order there."""

from __future__ import annotations

from .contestants import OURS
from .row import Row
from .subject import drain, drain_of_groups

PLAIN = drain("no groups, no rows", OURS, "noop", 10_000)
LANES_1000 = drain_of_groups("1,000 groups × 10, no rows", OURS, 1_000, 10)
LANES_10000 = drain_of_groups("10,000 groups × 2, no rows", OURS, 10_000, 2)
LANES_ONE = drain_of_groups("one group × 2,000, no rows", OURS, 1, 2_000)

LANE_ROWS = tuple(Row("lanes", subject.title, subject, PLAIN) for subject in (LANES_1000, LANES_10000, LANES_ONE))
