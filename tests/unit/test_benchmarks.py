"""The arithmetic of the benchmark and its report. What it measures is never asserted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.contestants import NAMESPACE, OURS, grouped
from benchmarks.memory import Sample, growth_by_process
from benchmarks.programs.lane_notes import LaneNotes, Lanes, read_lanes
from benchmarks.report import render
from benchmarks.result import Measurement, Metric, Rounds, Target, middle, ratio, spread
from benchmarks.scenarios import SCENARIOS, Row, Scenario
from jq_actors.events import Events, LaneClosed, LaneOpened
from tests.support.waiting import eventually_sync


def drains(*rates: float) -> Rounds:
    return [Measurement({Metric.DRAIN: rate}) for rate in rates]


FAILED = Measurement({}, "failed: no | such\nqueue")
AGAINST = Target("ours ≥ 2 × theirs", "ours", Metric.DRAIN, 2, ("theirs", Metric.DRAIN))


def test_the_middle_of_the_rounds_that_have_the_number() -> None:
    rounds = [*drains(10, 1000, 30), FAILED]
    assert middle(rounds, Metric.DRAIN) == 30
    assert spread(rounds, Metric.DRAIN) == (10, 1000)
    assert middle(rounds, Metric.P50) is None


def test_a_ratio_is_of_one_round_not_of_the_medians() -> None:
    # The machine was ten times slower in round two: for both.
    assert ratio(drains(300, 20, 310), Metric.DRAIN, drains(100, 10, 100), Metric.DRAIN) == 3.0
    assert ratio(drains(300, 20), Metric.DRAIN, [FAILED, *drains(10)], Metric.DRAIN) == 2.0
    assert ratio(drains(1), Metric.DRAIN, [], Metric.DRAIN) is None


@pytest.mark.parametrize(("ours", "met"), [(199, False), (200, True)])
def test_a_target_against_another_row(ours: float, met: bool) -> None:
    measured = AGAINST.measured({"ours": drains(ours), "theirs": drains(100)})
    assert measured is not None
    assert AGAINST.is_met(measured) is met


def test_a_target_that_is_a_limit() -> None:
    target = Target("p50 ≤ 5 ms", "ours", Metric.P50, 5, at_most=True)
    assert target.measured({"ours": [Measurement({Metric.P50: 4.0})]}) == 4.0
    assert target.is_met(4.0)
    assert not target.is_met(5.1)
    assert target.measured({}) is None


def test_the_report_tells_rates_ratios_targets_failures_and_the_machine() -> None:
    scenario = Scenario(
        name="few",
        title="Few jobs",
        metrics=(Metric.DRAIN,),
        rows=tuple(Row(title, OURS, "noop", 1) for title in ("theirs", "ours", "broken", "absent")),
        compared=Metric.DRAIN,
        bases=("theirs",),
        targets=(AGAINST, Target("absent ≥ 1", "absent", Metric.DRAIN, 1)),
    )
    rows = {"theirs": drains(1000, 1100), "ours": drains(1500, 1650), "broken": [FAILED, FAILED]}
    lines = render([scenario], {"few": rows}, {"Python": "3.x"}, rounds=2).splitlines()
    assert "| ours | 1,575 [1,500 … 1,650] | 1.50 |  |" in lines
    assert "| broken | — | — | failed: no \\| such ⏎ queue |" in lines
    assert "| ours ≥ 2 × theirs | 1.50 × | **not met** |" in lines
    assert "| absent ≥ 1 | — | not measured |" in lines
    assert "| Python | 3.x |" in lines


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_targets_and_bases_name_rows_of_their_scenario(scenario: Scenario) -> None:
    titles = {row.title for row in scenario.rows}
    assert titles >= set(scenario.bases)
    for target in scenario.targets:
        assert target.row in titles
        assert target.against is None or target.against[0] in titles


def test_memory_grows_from_the_end_of_the_warm_up() -> None:
    samples = [Sample(n, {1: 50.0 if n < 2 else 100.0 + n, 2: 70.0}) for n in range(20)]
    assert growth_by_process(samples) == {1: 15.0, 2: 0.0}


def test_lanes_are_counted_over_all_processes(tmp_path: Path) -> None:
    (tmp_path / "1.lanes").write_text(json.dumps({"opened": 3, "closed": 1, "first": 5, "last": 7}))
    (tmp_path / "2.lanes").write_text(json.dumps({"opened": 1, "closed": 1, "first": 4, "last": 6}))
    both = read_lanes(tmp_path)
    assert both == Lanes(opened=4, closed=2, first=4, last=7)
    assert both.served == 2


def test_a_worker_notes_its_lanes(tmp_path: Path) -> None:
    events = Events()
    LaneNotes(tmp_path, events)
    for served in (1, 2):
        events.emit(LaneOpened("default", f"group-{served}", served))
    events.emit(LaneClosed("default", "group-1", "drained", 1))
    eventually_sync(lambda: read_lanes(tmp_path).closed == 1, 10, "the notes to be written")
    noted = read_lanes(tmp_path)
    assert (noted.opened, noted.served) == (2, 1)
    assert 0 < noted.first < noted.last


def test_who_has_groups_names_their_queues_for_the_deletion() -> None:
    queues = grouped(OURS, 2).queues
    assert queues[-3:] == (
        f"{NAMESPACE}.lobby.default",
        f"{NAMESPACE}.g.default.group-0",
        f"{NAMESPACE}.g.default.group-1",
    )
