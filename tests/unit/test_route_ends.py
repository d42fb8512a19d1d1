"""What the books make of how a request ended: the endpoint's health, a refusal that comes late."""

from __future__ import annotations

from collections.abc import Mapping

from epp.pool.health import IN_A_ROW
from epp.types import Change, Decision, Refused, Request
from tests.unit.kit import A, World, response_body, response_headers, said, set_headers

PROMPT = {"model": "m", "prompt": "hello"}


def ended(world: World, status: int) -> None:
    dialogue, _ = world.asked(PROMPT)
    said(dialogue, response_headers(status))
    said(dialogue, response_body(b"{}", end=True))
    dialogue.close("natural")


def test_answers_that_fail_in_a_row_cool_the_endpoint() -> None:
    world = World()
    for _ in range(IN_A_ROW):
        ended(world, 503)
    assert A.key in world.health.cooling(world.clock())
    assert world.notes.all("failed") == ["5xx"] * IN_A_ROW


def test_an_answer_between_those_that_fail_keeps_the_endpoint_in_use() -> None:
    world = World()
    for status in (503, 503, 404, 503, 503):
        ended(world, status)
    assert world.health.cooling(world.clock()) == {}


def test_responses_that_are_missing_at_once_cool_the_endpoint() -> None:
    world = World()
    for _ in range(IN_A_ROW):
        dialogue, _ = world.asked(PROMPT)
        dialogue.close("client-disconnect")
    assert A.key in world.health.cooling(world.clock())
    assert world.notes.all("failed") == ["missing"] * IN_A_ROW


def test_nothing_is_remembered_of_an_endpoint_that_has_gone() -> None:
    world = World()
    under_way = [world.asked(PROMPT)[0] for _ in range(IN_A_ROW)]
    world.pool.apply(Change(gone=(A.key,)))
    world.health.forget(A.key)
    for dialogue in under_way:
        dialogue.close("client-disconnect")
    assert world.notes.all("failed") == ["missing"] * IN_A_ROW
    assert world.health.cooling(world.clock()) == {}


def test_a_hook_that_refuses_the_engines_answer_ends_the_request_as_an_error() -> None:
    class Gate:
        def response_headers(
            self, request: Request, decision: Decision, headers: Mapping[str, tuple[str, ...]], metadata: object
        ) -> None:
            raise Refused(403, "not for you")

    world = World(hooks=[Gate()])
    dialogue, _ = world.asked(PROMPT)
    [answer] = said(dialogue, response_headers())
    assert answer.immediate_response.body == b"inference error: Forbidden - not for you"
    assert [outcome.cause for outcome in world.notes.all("ended")] == ["error"]
    assert (world.pool.ledger.requests, world.notes.all("refused")) == (0, [])


class Told:
    """A trace that writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def headers(self) -> dict[str, str]:
        return {"traceparent": "00-of-ours"}

    def decided(self, decision: Decision) -> None:
        self.heard.append([endpoint.key for endpoint in decision.picked])

    def end(self, *, status: int, error: str) -> None:
        self.heard.append((status, error))


def traced(world: World) -> Told:
    told = Told()
    world.notes.started = lambda request: told  # type: ignore[method-assign]
    return told


def test_a_trace_hears_of_the_pick_and_of_the_end_and_goes_on_in_the_engine() -> None:
    world = World()
    told = traced(world)
    dialogue, answers = world.asked(PROMPT)
    assert set_headers(answers[0])["traceparent"] == "00-of-ours"
    said(dialogue, response_headers(503))
    dialogue.close("natural")
    assert told.heard == [[A.key], (503, "5xx")]


def test_a_trace_of_a_refused_request_hears_how_far_it_came() -> None:
    world = World(endpoints=())
    told = traced(world)
    world.asked(PROMPT)
    assert told.heard == [[], (503, "failed to find endpoint candidates for serving the request")]
