"""Several profiles: which run, in which order, and whose pick the request goes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from epp import testing
from epp.pickers import max_score_picker
from epp.plan import Given, Setup
from epp.profiles import decide
from epp.scheduler import Bound, Profile
from epp.types import Decision, Endpoints, Mask, Refused, Run

PICKER = Bound("picker", max_score_picker, ("scores", "rng"))
Runs = Mapping[str, Run]
Names = tuple[str, ...]


def only(name: str) -> Profile:
    """Picks the endpoint of this name, or refuses."""

    def keep(endpoints: Endpoints) -> Mask:
        return np.array([record.name == name for record in endpoints.records], dtype=np.bool_)

    return Profile(name, (Bound(f"only-{name}", keep, ("endpoints",)),), (), PICKER)


def decided(handler: Callable[[Names, Runs], list[str]], primary: Any = None, **profiles: Profile) -> Decision:
    setup = Setup({}, profiles, Bound("handler", handler, ("profiles", "runs")), primary)
    given = Given(testing.request(), testing.endpoints(waiting=[0, 0]), 0.0, np.random.default_rng(0), lambda: 0.0)
    decision = decide(setup, given, frozenset())
    assert isinstance(decision, Decision)
    return decision


def both(profiles: Names, runs: Runs) -> list[str]:
    return list(profiles)


def test_a_handler_is_asked_until_it_names_nothing_new() -> None:
    asked: list[Names] = []

    def handler(profiles: Names, runs: Runs) -> list[str]:
        asked.append(tuple(runs))
        return ["decode", "nobody"]

    decision = decided(handler, decode=only("e0"), prefill=only("e1"))
    assert (asked, list(decision.runs)) == ([(), ("decode",)], ["decode"])


def test_a_handler_sees_what_ran_before_it_names_the_next() -> None:
    def handler(profiles: Names, runs: Runs) -> list[str]:
        return ["prefill"] if "decode" in runs and runs["decode"].picked else ["decode"]

    decision = decided(handler, prefill=only("e1"), decode=only("e0"))
    assert {name: run.picked[0].name for name, run in decision.runs.items()} == {"decode": "e0", "prefill": "e1"}
    assert (decision.primary, decision.picked[0].name) == ("decode", "e0")


def test_the_handler_has_the_word_on_which_run_counts() -> None:
    decision = decided(both, lambda request, runs: "decode", prefill=only("e1"), decode=only("e0"))
    assert (decision.primary, decision.picked[0].name) == ("decode", "e0")


def test_the_first_run_that_picked_counts_where_the_handler_fails_to_say() -> None:
    decision = decided(both, lambda request, runs: runs["gone"].profile, prefill=only("nobody"), decode=only("e0"))
    assert (decision.primary, [flaw.by for flaw in decision.flaws]) == ("decode", ["handler"])


def test_a_primary_run_that_picked_nobody_refuses_the_request() -> None:
    with pytest.raises(Refused, match="no endpoints available") as refused:
        decided(both, lambda request, runs: "decode", prefill=only("e1"), decode=only("nobody"))
    assert (refused.value.by, refused.value.decision is not None) == ("only-nobody", True)


def test_a_handler_that_names_no_profile_refuses_the_request() -> None:
    with pytest.raises(Refused, match="no profile ran"):
        decided(lambda profiles, runs: [], decode=only("e0"), prefill=only("e1"))
