"""The one table of a job's moves: it is closed, and the diagram in the docs is drawn from it."""

from __future__ import annotations

from itertools import product

import pytest

from protojobs.port.lifecycle import FINISHED, STORED, TRANSITIONS, JobState, Verb, diagram


def test_every_move_starts_and_ends_in_a_known_state_by_a_known_verb() -> None:
    for (state, verb), targets in TRANSITIONS.items():
        assert isinstance(state, JobState)
        assert isinstance(verb, Verb)
        assert targets
        assert all(target is None or isinstance(target, JobState) for target in targets)


def test_every_state_can_be_reached_from_pending_and_none_is_a_dead_end() -> None:
    reached, ways = {JobState.PENDING}, [JobState.PENDING]
    while ways:
        state = ways.pop()
        moves = [target for (start, _), targets in TRANSITIONS.items() if start is state for target in targets]
        assert moves, f"nothing leads out of {state}"
        for target in moves:
            if target is not None and target not in reached:
                reached.add(target)
                ways.append(target)
    assert reached == set(STORED)


def test_every_verb_is_used() -> None:
    assert {verb for _, verb in TRANSITIONS} == set(Verb)


def test_only_a_claim_leads_into_processing() -> None:
    entries = {(s, v) for (s, v), targets in TRANSITIONS.items() if JobState.PROCESSING in targets}
    assert entries - {(JobState.PROCESSING, Verb.CANCEL)} == {(JobState.PENDING, Verb.CLAIM)}


@pytest.mark.parametrize(("state", "verb"), list(product(JobState, (Verb.CLEAR, Verb.PRUNE, Verb.FORGET))))
def test_nothing_deletes_a_processing_or_moving_job_and_only_finished_ones_are_pruned(
    state: JobState, verb: Verb
) -> None:
    may = (state, verb) in TRANSITIONS
    assert not (may and state in (JobState.PROCESSING, JobState.MOVING))
    if verb is Verb.PRUNE:
        assert may == (state in FINISHED)


def test_the_diagram_shows_each_arrow_once_with_all_of_its_verbs() -> None:
    lines = diagram().splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> pending : push"]
    drawn = set()
    for line in lines[2:]:
        start, rest = line.strip().split(" --> ")
        end, verbs = rest.split(" : ")
        drawn |= {(start, verb, end) for verb in verbs.split(", ")}
    wanted = {
        (state.value, verb.value, target.value if target else "[*]")
        for (state, verb), targets in TRANSITIONS.items()
        for target in targets
    }
    assert drawn == wanted
    assert len(lines) == len(set(lines))
