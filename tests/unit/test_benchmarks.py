"""The arithmetic of the benchmark and its table. What it measures is never asserted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks import broker_limit
from benchmarks.contestants import NAMESPACE, OURS, OURS_PERSISTENT, grouped
from benchmarks.lane_rows import LANE_ROWS
from benchmarks.memory import Sample, growth_by_process
from benchmarks.programs.lane_notes import LaneNotes, Lanes, read_lanes
from benchmarks.programs.our_producer import OurProducer
from benchmarks.programs.produce import CoroutineProducer
from benchmarks.report import render
from benchmarks.result import Measurement, Metric, Results, Rounds, middle, ratio, spread
from benchmarks.row import Row, Target, at_least, at_most, chosen, times
from benchmarks.run import measure_rounds
from benchmarks.settings import Settings
from benchmarks.stage import MeasurementError
from benchmarks.subject import Subject
from benchmarks.table_rows import ROWS
from jq_actors.events import Events, LaneClosed, LaneOpened
from tests.support.waiting import eventually_sync


def rates(*each: float) -> Rounds:
    return [Measurement({Metric.RATE: rate}) for rate in each]


def subject(title: str, only_once: bool = False, **numbers: float) -> Subject:
    measured: Mapping[Metric, float] = {Metric[name]: number for name, number in numbers.items()}
    return Subject(title, lambda scale, _: Measurement({m: n * scale for m, n in measured.items()}), only_once)


def breaks(scale: float, settings: Settings) -> Measurement:
    raise MeasurementError("no | such\nqueue")


FAILED = Measurement({}, "failed: no | such\nqueue")
OURSELVES, THEM, BROKEN = subject("ours", RATE=300), subject("theirs", RATE=100), Subject("broken", breaks)
SETTINGS = Settings(amqp_url="", database_url="")


def against(target: Target | None, ours: Subject = OURSELVES, peer: Subject | None = THEM) -> Row:
    return Row("some", "some jobs", ours, peer, target)


def test_the_middle_of_the_rounds_that_have_the_number() -> None:
    rounds = [*rates(10, 1000, 30), FAILED]
    assert middle(rounds, Metric.RATE) == 30
    assert spread(rounds, Metric.RATE) == (10, 1000)
    assert middle(rounds, Metric.P50) is None


def test_a_ratio_is_of_one_round_not_of_the_medians() -> None:
    # The machine was ten times slower in round two: for both.
    assert ratio(rates(300, 20, 310), rates(100, 10, 100), Metric.RATE) == 3.0
    assert ratio(rates(300, 20), [FAILED, *rates(10)], Metric.RATE) == 2.0
    assert ratio(rates(1), [], Metric.RATE) is None


@pytest.mark.parametrize(
    ("target", "ours", "met"),
    [
        (times(2), 199, False),
        (times(2), 200, True),
        (at_least(150), 149, False),
        (at_least(150), 150, True),
        (at_most(150), 150, True),
        (at_most(150), 151, False),
        (None, 150, None),
    ],
)
def test_a_target_is_of_the_ratio_or_of_our_number(target: Target | None, ours: float, met: bool | None) -> None:
    assert against(target).is_met({"ours": rates(ours), "theirs": rates(100)}) is met


@pytest.mark.parametrize(
    ("results", "of_ratio", "of_ours"),
    [
        ({"ours": rates(300)}, None, True),
        ({"theirs": rates(100)}, None, None),
        ({"ours": [FAILED], "theirs": rates(100)}, None, None),
    ],
)
def test_what_was_not_measured_is_neither_met_nor_missed(
    results: Results, of_ratio: bool | None, of_ours: bool | None
) -> None:
    assert against(times(2)).is_met(results) is of_ratio
    assert against(at_least(2)).is_met(results) is of_ours


def test_a_row_is_chosen_by_its_name_or_the_first_parts_of_it() -> None:
    rows = [Row(name, name, OURSELVES) for name in ("send-each", "send-many", "send-many-groups", "sender")]

    def names(*words: str) -> list[str]:
        return [row.name for row in chosen(rows, words)]

    assert names() == [row.name for row in rows]
    assert names("send") == ["send-each", "send-many", "send-many-groups"]
    assert names("sender", "send-many") == ["send-many", "send-many-groups", "sender"]
    with pytest.raises(ValueError, match="send-many-groups"):
        chosen(rows, ["send", "sen"])


def test_subjects_are_measured_side_by_side_each_once_a_round() -> None:
    memory = subject("memory", only_once=True, GROWTH=4)
    rows = [against(None), against(times(2)), against(None, peer=BROKEN), Row("memory", "memory", memory)]
    results = measure_rounds(rows, 2, 0.5, SETTINGS)
    assert list(results) == ["theirs", "ours", "broken", "memory"]
    assert results["ours"] == rates(150, 150)
    assert results["broken"] == [FAILED, FAILED]
    assert results["memory"] == [Measurement({Metric.GROWTH: 2})]


def test_the_report_tells_ratios_targets_failures_numbers_and_the_machine() -> None:
    rows = [
        against(times(4)),
        against(at_least(1000), peer=None),
        against(None, peer=BROKEN),
        against(times(1), ours=BROKEN),
        Row("latency", "latency: p50", subject("latency"), None, at_most(3), Metric.P50),
    ]
    results = {"theirs": rates(1000, 1100), "ours": rates(3000, 3850), "broken": [FAILED, FAILED]}
    lines = render(rows, results, {"Python": "3.x"}).splitlines()
    assert "| some jobs | 3,425/s | theirs: 1,050/s | 3.25 × | ≥ 4 × | **not met** |" in lines
    assert "| some jobs | 3,425/s | — | — | ≥ 1,000/s | met |" in lines
    assert "| some jobs | 3,425/s | broken: — | — | — | failed: no \\| such ⏎ queue |" in lines
    assert "| some jobs | — | theirs: 1,050/s | — | ≥ 1 × | not measured; failed: no \\| such ⏎ queue |" in lines
    assert "| latency: p50 | — | — | — | ≤ 3 ms | not measured |" in lines
    assert "| ours | 3,425 [3,000 … 3,850] |  |  |  |  |  |" in lines
    assert "| Python | 3.x |" in lines


@pytest.mark.parametrize("rows", [ROWS, LANE_ROWS], ids=["bench", "bench-groups"])
def test_no_two_subjects_of_a_table_share_a_title(rows: tuple[Row, ...]) -> None:
    subjects = {one for row in rows for one in row.subjects}
    assert len({one.title for one in subjects}) == len(subjects)


def test_a_target_of_a_ratio_has_a_peer() -> None:
    assert all(row.peer is not None for row in ROWS if row.target is not None and row.target.of_ratio)


def test_we_can_be_measured_with_coroutines() -> None:
    assert isinstance(OurProducer({}), CoroutineProducer)


def test_a_client_that_cannot_be_built_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.c").write_text("#include <no_such_library.h>\n")
    monkeypatch.setattr(broker_limit, "SOURCE", tmp_path / "broken.c")
    monkeypatch.setattr(broker_limit, "PROGRAM", tmp_path / "broken")
    monkeypatch.setattr(broker_limit, "_can_install", lambda: False)
    with pytest.raises(MeasurementError, match=r"broken\.c cannot be built; .*apt-get install gcc .*librabbitmq-dev"):
        broker_limit.measure_publishing(1, SETTINGS)


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


def test_who_has_groups_without_rows_names_their_queues_for_the_deletion() -> None:
    assert grouped(OURS, 2).queues[-3:] == (
        f"{NAMESPACE}.lobby.default",
        f"{NAMESPACE}.g.default.group-0",
        f"{NAMESPACE}.g.default.group-1",
    )
    assert grouped(OURS_PERSISTENT, 2).queues == OURS_PERSISTENT.queues
