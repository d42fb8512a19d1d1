"""`--response-phase none`: the stream ends once the request is on its way, and what stands in for what is lost."""

from __future__ import annotations

import json

import pytest
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode

from epp.extproc.dialogue import Dialogue
from epp.options import parse
from epp.options_argv import OptionsError
from epp.pool.unseen import HOLD_S
from epp.types import Change, Outcome, Reading

from .kit import A, B, World, bodies, request_body, request_headers, response_headers, said

PROMPT = {"model": "m", "prompt": "x"}


def world(**habits: bool) -> World:
    return World((A, B), whole_response=False, **habits)


def sent(made: World) -> str:
    """Key of the endpoint that a request went to, its stream over."""
    dialogue, _ = made.asked(PROMPT)
    dialogue.close("client-disconnect")
    return max((A.key, B.key), key=lambda key: made.pool.ledger.load(key).requests)


def ended(made: World) -> list[Outcome]:
    return [what for name, what in made.notes.heard if name == "ended"]


def mode(request_body_mode: int) -> Dialogue:
    dialogue = world().dialogue()
    message = request_headers(end=False)
    message.protocol_config.request_body_mode = request_body_mode  # type: ignore[assignment]  # an enum's number
    said(dialogue, message)
    if request_body_mode != ProcessingMode.STREAMED:
        said(dialogue, request_body(json.dumps(PROMPT).encode()))
    return dialogue


def test_the_stream_is_over_once_the_request_is_on_its_way() -> None:
    dialogue, answers = world().asked(PROMPT)
    assert json.loads(bodies(answers[1:], "request_body")) == PROMPT
    assert dialogue.over
    assert said(dialogue, response_headers()) == []


def test_with_the_response_phase_it_is_not() -> None:
    dialogue, _ = World().asked(PROMPT)
    assert not dialogue.over


def test_a_request_without_a_body_is_left_too() -> None:
    dialogue = world().dialogue()
    said(dialogue, request_headers(end=True, path="/v1/models"))
    assert dialogue.over


def test_a_rewritten_model_keeps_the_response_phase_so_that_it_is_mapped_back() -> None:
    dialogue, _ = world().asked(PROMPT, x_llm_d_model_name_rewrite="other")
    assert not dialogue.over


def test_an_upgraded_connection_is_not_left() -> None:
    dialogue = world().dialogue()
    said(dialogue, request_headers(upgrade="websocket"))
    assert not dialogue.over


@pytest.mark.parametrize(
    ("request_body_mode", "over"),
    [(ProcessingMode.FULL_DUPLEX_STREAMED, True), (ProcessingMode.BUFFERED, True), (ProcessingMode.STREAMED, False)],
    ids=["full duplex", "buffered", "streamed: pieces still need answers"],
)
def test_a_stream_is_left_where_nothing_more_is_owed(request_body_mode: int, over: bool) -> None:
    assert mode(request_body_mode).over is over


def test_nobody_is_blamed_for_a_response_that_nobody_saw() -> None:
    made = world()
    for _ in range(10):
        sent(made)
    assert [(one.cause, one.failure, one.status) for one in ended(made)] == [("unseen", "", 0)] * 10
    assert not made.health.cooling(made.clock())


def test_a_request_counts_as_in_flight_until_a_reading_tells_of_it() -> None:
    made = world()
    key = sent(made)
    made.pool.sent(key)
    made.pool.update(key, Reading(waiting=0, running=1), 0.1, 1.0)
    assert (made.pool.ledger.requests, made.notes.inflight_requests) == (0, 0)
    row = [one.key for one in made.pool.snapshot(0.1).records].index(key)
    assert made.pool.snapshot(0.1).running[row] == 1


def test_a_scrape_that_was_sent_before_tells_nothing_of_it() -> None:
    made = world()
    for key in (A.key, B.key):
        made.pool.sent(key)
    key = sent(made)
    made.pool.update(key, Reading(waiting=0, running=0), 0.1, 1.0)
    assert made.pool.ledger.load(key).requests == 1
    row = [one.key for one in made.pool.snapshot(0.1).records].index(key)
    endpoints = made.pool.snapshot(0.1)
    assert endpoints.waiting[row] + endpoints.running[row] == 1


def test_without_readings_a_request_counts_for_a_while() -> None:
    made = world()
    sent(made)
    made.pool.snapshot(made.clock() + HOLD_S * 0.9)
    assert made.pool.ledger.requests == 1
    made.pool.snapshot(made.clock() + HOLD_S * 1.1)
    assert (made.pool.ledger.requests, made.notes.inflight_requests) == (0, 0)


def test_a_scrape_that_fails_is_no_reading() -> None:
    made = world()
    key = sent(made)
    made.pool.sent(key)
    made.pool.sent(key)
    assert made.pool.ledger.load(key).requests == 1
    made.pool.update(key, Reading(waiting=0, running=0), 0.1, 1.0)
    assert made.pool.ledger.load(key).requests == 0


def test_what_is_in_flight_to_an_endpoint_that_is_gone_is_given_back_too() -> None:
    made = world()
    key = sent(made)
    made.pool.apply(Change(gone=(key,)))
    made.pool.snapshot(made.clock() + HOLD_S * 1.1)
    assert made.pool.ledger.requests == 0


def test_the_library_of_grpc_can_not_leave_in_time() -> None:
    with pytest.raises(OptionsError, match="--response-phase=none needs --transport=h2: only that ends a stream in"):
        parse(["--response-phase=none", "--transport=grpcio"], {}).validate(file_mode=True)
    assert parse(["--response-phase=none"], {}).response_phase == "none"
