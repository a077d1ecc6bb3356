"""Whose turn it is: who holds the places of a group, and who loses one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jq_actors.model.job import JobId, JobState
from jq_actors.model.lane import Fairness
from jq_actors.model.turn_rules import SHARE_AFTER, GroupView, Member, Places, assign_places, may_chain, why_it_waits

NOW = datetime(2026, 11, 24, tzinfo=UTC)
S = JobState
STUCK = (S.RETRYING, S.UNHANDLED)
PLACED = (S.QUEUED, S.RUNNING, *STUCK)


def job(name: str, state: JobState = S.WAITING, place: bool | None = None, position: int | None = None) -> Member:
    """A job that holds a place if its state is one of those that do, unless ``place`` says otherwise."""
    return Member(JobId(name), state, "q", NOW, state in PLACED if place is None else place, position)


def view(*members: Member, **values: object) -> GroupView:
    return replace(GroupView(members), **values)  # type: ignore[arg-type]  # by the name of the field


def names(members: tuple[Member, ...]) -> str:
    return "".join(member.job_id for member in members)


# -- who gets a place


def test_the_first_that_waits_gets_a_free_place() -> None:
    places = assign_places(view(job("a"), job("b")))
    assert names(places.released) == "a"
    assert places.change == 1


@pytest.mark.parametrize("holder", PLACED)
def test_while_the_place_is_held_nobody_gets_it(holder: JobState) -> None:
    assert assign_places(view(job("a", holder), job("b"))) == Places()


@pytest.mark.parametrize(("concurrency", "released"), [(1, ""), (2, "b"), (3, "bc"), (9, "bcd")])
def test_as_many_hold_places_as_the_rule_allows(concurrency: int, released: str) -> None:
    members = (job("a", S.RUNNING), job("b"), job("c"), job("d"))
    assert names(assign_places(view(*members, concurrency=concurrency)).released) == released


def test_more_run_than_may_and_those_are_left_alone() -> None:
    """The rule was changed meanwhile."""
    assert assign_places(view(job("a", S.RUNNING), job("b", S.RUNNING), job("c"))) == Places()
    places = assign_places(view(job("a", S.RUNNING), job("b", S.QUEUED), job("c")))
    assert names(places.withdrawn) == "b"


def test_what_runs_keeps_its_place_whoever_was_moved_before_it() -> None:
    assert assign_places(view(job("a"), job("b", S.RUNNING))) == Places()


def test_one_that_was_moved_to_the_front_takes_the_place_of_a_queued_one() -> None:
    places = assign_places(view(job("a"), job("b", S.QUEUED), job("c")))
    assert (names(places.released), names(places.withdrawn), places.change) == ("a", "b", 0)


@pytest.mark.parametrize("state", STUCK)
def test_one_that_was_moved_to_the_front_passes_a_stuck_one(state: JobState) -> None:
    places = assign_places(view(job("a"), job("b", state)))
    assert (names(places.released), names(places.passed), places.change) == ("a", "b", 0)


@pytest.mark.parametrize("state", STUCK)
def test_a_stuck_one_whose_turn_it_is_blocks_its_group(state: JobState) -> None:
    places = assign_places(view(job("a", state, place=False), job("b")))
    assert (names(places.kept_back), names(places.released), places.change) == ("a", "", 1)


def test_a_retry_that_may_be_overtaken_holds_no_place() -> None:
    places = assign_places(view(job("a", S.RETRYING), job("b"), overtake=True))
    assert (names(places.passed), names(places.released)) == ("a", "b")
    assert names(assign_places(view(job("a", S.UNHANDLED), job("b"), overtake=True)).released) == ""


# -- paused


def test_in_a_paused_group_nothing_is_queued() -> None:
    members = (job("a", S.RUNNING), job("b", S.QUEUED), job("c"))
    places = assign_places(view(*members, concurrency=3, paused="by ops"))
    assert (names(places.withdrawn), names(places.released), places.change) == ("b", "", -1)


@pytest.mark.parametrize("state", STUCK)
@pytest.mark.parametrize("holds", [True, False])
def test_in_a_paused_group_a_stuck_one_keeps_its_place_and_gets_none(state: JobState, holds: bool) -> None:
    assert assign_places(view(job("a"), job("b", state, place=holds), paused="by ops")) == Places()


# -- numbered


def numbered(*members: Member, next_position: int, **values: object) -> GroupView:
    return view(*members, next_position=next_position, **values)


def test_the_next_number_gets_the_place_and_the_one_behind_it_is_next() -> None:
    places = assign_places(numbered(job("a", position=3), job("b", position=4), next_position=3))
    assert (names(places.released), places.next_position) == ("a", 4)


def test_nobody_passes_a_number_that_has_not_come() -> None:
    group = numbered(job("a", position=3), job("b", position=5), next_position=3, concurrency=3)
    places = assign_places(group)
    assert (names(places.released), places.next_position) == ("a", 4)
    assert names(assign_places(replace(group, next_position=2)).released) == ""


def test_nobody_passes_a_number_that_is_scheduled() -> None:
    members = (job("a", S.SCHEDULED, position=1), job("b", position=2))
    assert assign_places(numbered(*members, next_position=1)) == Places(next_position=1)


def test_numbers_that_have_ended_are_passed() -> None:
    places = assign_places(numbered(job("a", position=6), next_position=3, ended=frozenset({3, 4, 5, 7})))
    assert (names(places.released), places.next_position) == ("a", 8)
    places = assign_places(numbered(next_position=3, ended=frozenset({3, 4})))
    assert places == Places(next_position=5)


def test_a_number_that_was_retried_runs_although_it_is_past() -> None:
    places = assign_places(numbered(job("a", position=2), job("b", position=7), next_position=7))
    assert (names(places.released), places.next_position) == ("a", 7)


def test_a_number_that_was_left_out_goes_before_those_that_are_queued() -> None:
    members = (job("a", position=2), job("b", S.QUEUED, position=3))
    places = assign_places(numbered(*members, next_position=4))
    assert (names(places.released), names(places.withdrawn), places.next_position) == ("a", "b", 4)


# -- whatever a group looks like

MEMBERS = st.lists(st.tuples(st.sampled_from([S.QUEUED, S.WAITING, S.RUNNING, *STUCK]), st.booleans()), max_size=7).map(
    lambda states: tuple(
        job(str(n), state, place=state in (S.QUEUED, S.RUNNING) or (state is not S.WAITING and place))
        for n, (state, place) in enumerate(states)
    )
)
GROUPS = st.builds(
    GroupView,
    MEMBERS,
    concurrency=st.integers(1, 4),
    overtake=st.booleans(),
    paused=st.sampled_from([None, "by ops"]),
)


def after(group: GroupView) -> GroupView:
    """The group when its places are as `assign_places` says."""
    places = assign_places(group)
    changes = dict.fromkeys(places.released, S.QUEUED) | dict.fromkeys(places.withdrawn, S.WAITING)
    holding = {*places.released, *places.kept_back}
    losing = {*places.withdrawn, *places.passed}
    return replace(
        group,
        members=tuple(
            replace(
                member,
                state=changes.get(member, member.state),
                has_place=(member.has_place or member in holding) and member not in losing,
            )
            for member in group.members
        ),
        next_position=places.next_position,
    )


@given(GROUPS)
def test_once_assigned_places_stay_as_they_are(group: GroupView) -> None:
    assert assign_places(after(group)).change == 0
    assert after(after(group)) == after(group)


@given(GROUPS)
def test_all_places_are_held_or_nothing_could_start_or_the_group_is_paused(group: GroupView) -> None:
    settled = after(group)
    holding = [member for member in settled.members if member.has_place]
    running = [member for member in settled.members if member.state is S.RUNNING]
    waiting = [member for member in settled.members if member.state is S.WAITING]
    assert len(holding) <= max(group.concurrency, len(running))
    assert len(holding) >= group.concurrency or not waiting or group.paused is not None
    assert group.paused is None or not any(member.state is S.QUEUED for member in settled.members)


@given(GROUPS.filter(lambda group: group.paused is None))
def test_nobody_but_who_runs_holds_a_place_while_an_earlier_one_waits(group: GroupView) -> None:
    members = after(group).members
    for n, member in enumerate(members):
        if member.state is S.WAITING:
            assert {behind.state for behind in members[n:] if behind.has_place} <= {S.RUNNING}


@given(GROUPS)
def test_what_changes_is_counted(group: GroupView) -> None:
    held = [sum(member.has_place for member in each.members) for each in (group, after(group))]
    assert held[1] - held[0] == assign_places(group).change


# -- why it waits


def test_a_paused_group_says_why_whatever_runs() -> None:
    assert why_it_waits(view(job("a"), paused="by ops")) == "by ops"
    assert why_it_waits(view(job("a", S.RUNNING), job("b"), paused="by ops")) == "by ops"


@pytest.mark.parametrize("state", [S.QUEUED, S.WAITING])
def test_one_that_may_start_waits_for_a_worker_only(state: JobState) -> None:
    assert why_it_waits(view(job("a", state))) is None


def test_nothing_waits_where_nothing_is_or_all_run() -> None:
    assert why_it_waits(view()) is None
    assert why_it_waits(view(job("a", S.RUNNING))) is None


@pytest.mark.parametrize("state", [S.RETRYING, S.SCHEDULED])
def test_a_retry_and_a_number_that_is_scheduled_say_until_when(state: JobState) -> None:
    head = replace(job("a", state), due_at=NOW + timedelta(minutes=1))
    assert why_it_waits(view(head, job("b"))) == f"blocked by job a, {state.value} until 2026-11-24T00:01:00+00:00"


def test_one_that_no_worker_knows_is_named() -> None:
    group = view(job("a", S.RUNNING), job("b", S.UNHANDLED), job("c"), concurrency=2)
    assert why_it_waits(group) == "blocked by job b, which no worker can run"


def test_a_number_that_has_not_come_is_named() -> None:
    assert why_it_waits(numbered(job("a", position=3), next_position=2)) == "position 2 has not been sent"


# -- how long a turn lasts

FAIR = Fairness(quantum=5, time_slice=timedelta(seconds=2))


@pytest.mark.parametrize(
    ("done", "seconds", "others_wait", "goes_on"),
    [
        (1, 0.0, True, True),
        (4, SHARE_AFTER - 0.01, True, True),
        (4, SHARE_AFTER, True, False),
        (4, 1.99, False, True),
        (4, 2.0, False, False),
        (5, 0.0, False, False),
    ],
)
@pytest.mark.parametrize("weight", [1, 3])
def test_a_turn_lasts_a_quantum_or_a_slice_of_time_and_less_where_others_wait(
    done: int, seconds: float, others_wait: bool, goes_on: bool, weight: int
) -> None:
    assert may_chain(done * weight, seconds * weight, FAIR, weight, others_wait=others_wait) is goes_on
