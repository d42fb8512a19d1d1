"""A request's life through dialogue, route and exchange: what is forwarded, refused, charged and told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse
from hypothesis import given
from hypothesis import strategies as st

from epp.account import Account
from epp.bodies import Parsers
from epp.bodies.openai import OpenAIParser
from epp.extproc.faults import ProtocolError
from epp.plan import Measured
from epp.scheduler import Bound
from epp.signals import Provides, column
from epp.suspension import Worked
from epp.types import Decision, Outcome, Refused, Request
from tests.unit.kit import (
    A,
    B,
    World,
    bodies,
    request_body,
    request_headers,
    response_body,
    response_headers,
    said,
    set_headers,
    setup,
)

PROMPT = {"model": "m", "prompt": "Once upon a time", "max_tokens": 4}
DESTINATION = "x-gateway-destination-endpoint"


def refusal(answers: list[ProcessingResponse]) -> tuple[int, str]:
    [answer] = answers
    return answer.immediate_response.status.code, answer.immediate_response.body.decode()


# ---- forwarding


def test_a_request_is_forwarded_with_its_body_as_it_came() -> None:
    raw = b'{"prompt": "x",  "model":"m", "seed": 12345678901234567890}'
    _, answers = World().asked(raw)
    assert set_headers(answers[0]) == {DESTINATION: "10.0.0.1:8000", "Content-Length": str(len(raw))}
    assert bodies(answers[1:], "request_body") == raw


def test_an_ipv6_address_is_bracketed() -> None:
    _, answers = World([B]).asked(PROMPT)
    assert set_headers(answers[0])[DESTINATION] == "[fd00::2]:8000"


def test_a_request_without_an_id_gets_one() -> None:
    dialogue = World().dialogue()
    message = request_headers(end=True)
    del message.request_headers.headers.headers[2]
    assert len(set_headers(said(dialogue, message)[0])["x-request-id"]) == 36


def test_a_bodiless_request_goes_to_any_endpoint_and_charges_nothing() -> None:
    world = World()
    [answer] = said(world.dialogue(), request_headers(end=True, path="/v1/models"))
    assert set_headers(answer) == {DESTINATION: "10.0.0.1:8000"}
    assert world.pool.ledger.requests == 0


def test_the_model_header_rewrites_the_body_and_the_response_speaks_of_the_clients_model() -> None:
    dialogue, answers = World().asked(PROMPT, x_llm_d_model_name_rewrite="other")
    assert json.loads(bodies(answers[1:], "request_body")) == PROMPT | {"model": "other"}
    [head] = said(dialogue, response_headers(content_length="99"))
    assert "content-length" in head.response_headers.response.header_mutation.remove_headers
    answers = said(dialogue, response_body(b'{"model":"other","choices":[{"text":"the model other"}]}', end=True))
    assert json.loads(bodies(answers, "response_body")) == {"model": "m", "choices": [{"text": "the model other"}]}


@pytest.mark.parametrize("header", ["x_llm_d_inference_fairness_id", "x_gateway_inference_fairness_id"])
def test_both_generations_of_header_names_are_read(header: str) -> None:
    seen: list[Request] = []

    class Spy:
        def arrived(self, request: Request) -> None:
            seen.append(request)

    World(hooks=[Spy()]).asked(PROMPT, **{header: "team-a"})
    assert seen[0].fairness_id == "team-a"


def test_without_a_fairness_header_the_agents_identity_counts_then_the_default() -> None:
    class Identity:
        def arrived(self, request: Request) -> dict[str, str]:
            return {"agent-identity": request.header("session-id")}

        def picked(self, request: Request, decision: Decision) -> dict[str, str]:
            return {"x-seen": request.fairness_id}

    world = World(hooks=[Identity()])
    assert set_headers(world.asked(PROMPT, session_id="s1")[1][0])["x-seen"] == "s1"
    assert set_headers(world.asked(PROMPT)[1][0])["x-seen"] == "default-flow"


def test_scores_ride_in_the_metadata_only_when_asked_for() -> None:
    _, answers = World(emit_scores=True).asked(PROMPT)
    lb = answers[0].dynamic_metadata.fields["envoy.lb"].struct_value.fields
    assert lb[DESTINATION].string_value == "10.0.0.1:8000"
    assert dict(lb[f"{DESTINATION}-scores"].struct_value.fields.items())["10.0.0.1:8000"].number_value == 1.0


# ---- refusals


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{nonsense", (400, "inference error: BadRequest - error unmarshaling request bodyMap: ")),
        (b"", (400, "inference error: BadRequest - error unmarshaling request bodyMap: unexpected end of JSON input")),
        ({"prompt": "x"}, (400, "inference error: BadRequest - model not found in request body")),
        ({"model": "m"}, (400, "inference error: BadRequest - invalid completions request: must have prompt field")),
        (
            {"model": "m" * 1_025, "prompt": "x"},
            (400, "inference error: BadRequest - the name of the model is over 1024 characters"),
        ),
    ],
    ids=["no JSON", "empty", "no model", "no prompt", "endless model"],
)
def test_a_wrong_body_is_400_with_the_reason(body: object, expected: tuple[int, str]) -> None:
    world = World()
    _, answers = world.asked(body)
    status, text = refusal(answers)
    assert (status, text[: len(expected[1])]) == expected
    assert world.held.held == 0
    assert world.notes.all("refused") == [400]
    assert world.notes.all("refused by") == ["parser"]


def test_a_header_gives_no_model_a_longer_name_than_a_body_may() -> None:
    _, answers = World().asked(PROMPT, x_llm_d_model_name_rewrite="m" * 1_025)
    assert refusal(answers)[0] == 400


def test_an_unknown_path_is_400_when_no_parser_takes_everything() -> None:
    world = World(parsers=Parsers([OpenAIParser()]))
    _, answers = world.asked({}, path="/v2/sing")
    assert refusal(answers) == (
        400,
        "inference error: BadRequest - no parser registered matching path suffix for: /v2/sing",
    )


def test_an_empty_pool_is_503_with_and_without_a_body() -> None:
    world = World([])
    with_body = world.asked(PROMPT)[1]
    bodiless = said(world.dialogue(), request_headers(end=True))
    text = "inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request"
    assert refusal(with_body) == refusal(bodiless) == (503, text)
    [option] = bodiless[0].immediate_response.headers.set_headers
    assert (option.header.key, option.header.raw_value) == (
        "x-llm-d-request-dropped-reason",
        b"rejected-no-endpoints",
    )


@pytest.mark.parametrize(
    ("prefer", "cached", "status"), [("if-available", 0, 412), ("IF-Available;x=1", 3, 0), ("", 0, 0)]
)
def test_a_conditional_request_needs_cached_blocks(prefer: str, cached: float, status: int) -> None:
    blocks = Measured(
        Bound("p", lambda e: np.full(len(e), cached), ("endpoints",)),
        Provides({"cached_blocks": column()}, "", True, 400.0),
        ("cached_blocks",),
    )
    world = World(made=setup(signals=(blocks,)))
    _, answers = world.asked(PROMPT, **({"prefer": prefer} if prefer else {}))
    assert answers[0].immediate_response.status.code == status
    assert world.pool.ledger.requests == (0 if status else 1)


def test_a_hook_that_fails_after_the_pick_fails_the_request_and_charges_nothing() -> None:
    class Broken:
        def picked(self, request: Request, decision: Decision) -> None:
            raise KeyError("x")

    world = World(hooks=[Broken()])
    assert refusal(world.asked(PROMPT)[1]) == (
        500,
        "inference error: Internal - PreRequest \"hooked/hooked\" failed: KeyError('x')",
    )
    assert world.pool.ledger.requests == 0


def test_a_hook_may_refuse_with_its_own_code() -> None:
    class Gate:
        def arrived(self, request: Request) -> None:
            raise Refused(401, "who are you?")

    assert refusal(World(hooks=[Gate()]).asked(PROMPT)[1]) == (401, "inference error: Unauthorized - who are you?")


def test_a_message_that_is_none_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError):
        World().dialogue().receive(b"\xff\xff")


# ---- the books


def conversation() -> list[Any]:
    raw = json.dumps(PROMPT | {"stream": True}).encode()
    usage = b'data: {"usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}\n\n'
    return [
        request_headers(),
        request_body(raw[:10], end=False),
        request_body(raw[10:], end=False),
        request_body(b""),
        response_headers(content_type="text/event-stream"),
        response_body(b'data: {"choices": []}\n\n'),
        response_body(usage[:20]),
        response_body(usage[20:]),
        response_body(b"data: [DONE]\n\n", end=True),
    ]


@given(st.integers(0, 9), st.sampled_from(["client-disconnect", "error"]), st.integers(1, 3))
def test_whatever_ends_a_stream_everything_is_given_back_once(cut: int, cause: str, closes: int) -> None:
    world = World()
    dialogue = world.dialogue()
    for message in conversation()[:cut]:
        said(dialogue, message)
    for _ in range(closes):
        dialogue.close(cause)
    assert (world.pool.ledger.requests, world.notes.inflight_requests, world.held.held) == (0, 0, 0)
    assert world.pool.snapshot(0.0).inflight_tokens.tolist() == [0]
    assert len(world.notes.all("ended")) == (1 if cut >= 4 else 0)


def test_a_body_is_held_until_its_answer_is_written() -> None:
    world = World()
    dialogue = world.dialogue()
    said(dialogue, request_headers())
    raw = json.dumps(PROMPT).encode()
    assert dialogue.receive(request_body(raw).SerializeToString())
    assert world.held.held == len(raw)
    dialogue.sent()
    assert world.held.held == 0


def test_a_body_over_the_limit_is_refused_once_with_413() -> None:
    world = World()
    dialogue = world.dialogue()
    said(dialogue, request_headers())
    answers = said(dialogue, request_body(b"x" * (1 << 20), end=False)) + said(dialogue, request_body(b"x"))
    assert refusal(answers)[0] == 413
    assert (world.held.held, world.notes.all("refused"), dialogue.over) == (0, [413], True)


def test_a_streamed_response_tells_its_usage_and_first_token_time() -> None:
    world = World()
    dialogue = world.dialogue()
    for message in conversation():
        said(dialogue, message)
        world.clock.now += 1.0
    [outcome] = world.notes.all("ended")
    assert (outcome.usage.prompt_tokens, outcome.usage.completion_tokens) == (5, 2)
    assert (outcome.ttft_s, outcome.duration_s, outcome.cause, outcome.pieces) == (5.0, 8.0, "natural", 2)
    assert world.notes.all("piece") == [1.0, 1.0, 1.0]


def test_what_a_streamed_response_takes_is_the_sum_over_its_pieces() -> None:
    world = World()
    dialogue, _ = world.asked(PROMPT | {"stream": True})
    said(dialogue, response_headers(content_type="text/event-stream"))
    for wire in (b"data: {}\n\n", b"data: {}\n\n", b""):
        world.clock.now += 10.0
        world.clock.step = 0.5
        said(dialogue, response_body(wire, end=not wire))
        world.clock.step = 0.0
    assert world.notes.all("ended")[0].work_s == 1.0


def test_what_another_response_takes_is_the_time_from_its_headers_to_its_end() -> None:
    world = World()
    dialogue, _ = world.asked(PROMPT)
    world.clock.now += 10.0
    said(dialogue, response_headers())
    world.clock.now += 3.0
    said(dialogue, response_body(b"{}", end=True))
    assert world.notes.all("ended")[0].work_s == 3.0


@pytest.mark.parametrize(
    ("last", "cause"),
    [
        (b"data: [DONE]\n\n", "natural"),
        (b'event: message_stop\ndata: {"type":"message_stop"}\n\n', "natural"),
        (b'data: {"choices": []}\n\n', "client-disconnect"),
    ],
    ids=["openai", "anthropic", "not the last"],
)
def test_a_client_that_hangs_up_at_the_last_event_has_its_whole_response(last: bytes, cause: str) -> None:
    world = World()
    dialogue = world.dialogue()
    for message in conversation()[:-1]:
        said(dialogue, message)
    said(dialogue, response_body(last))
    dialogue.close("client-disconnect")
    [outcome] = world.notes.all("ended")
    assert (outcome.cause, outcome.usage.total_tokens) == (cause, 7)


def test_tokens_in_flight_go_with_the_first_piece_and_the_request_with_the_last() -> None:
    world = World()
    dialogue, _ = world.asked(PROMPT)
    seen = []
    for message in (response_headers(), response_body(b"{"), response_body(b"}", end=True)):
        shown = world.pool.snapshot(0.0)
        seen.append((shown.inflight.tolist()[0], shown.inflight_tokens.tolist()[0] > 0))
        said(dialogue, message)
    assert seen == [(1, True), (1, True), (1, False)]
    assert world.pool.ledger.requests == 0


def test_the_prompt_and_the_signals_are_dropped_when_the_answer_is_sent() -> None:
    dialogue, _ = World().asked(PROMPT)
    assert dialogue._exchange is not None
    books = dialogue._exchange.books
    assert isinstance(books, Account)
    assert books.decision is not None
    assert (books.request.prompts, books.decision.signals) == ((), {})


# ---- how endpoints answer


@pytest.mark.parametrize(
    ("answer", "kinds"),
    [
        pytest.param(response_headers(500), ["5xx"], id="the engine's own 500"),
        pytest.param(response_headers(503), ["5xx"], id="the engine's own 503"),
        pytest.param(response_headers(429), [], id="busy is no failure"),
        pytest.param(response_headers(400), [], id="nor is a wrong request"),
        pytest.param(response_headers(200), [], id="well"),
    ],
)
def test_only_5xx_count_against_an_endpoint(answer: Any, kinds: list[str]) -> None:
    world = World()
    dialogue, _ = world.asked(PROMPT)
    said(dialogue, answer)
    dialogue.close("client-disconnect")
    assert world.notes.all("failed") == kinds


def test_the_proxys_own_503_counts_as_a_failed_connection() -> None:
    world = World()
    dialogue, _ = world.asked(PROMPT)
    message = response_headers(503)
    del message.response_headers.headers.headers[2]
    said(dialogue, message)
    assert world.notes.all("failed") == ["connect"]


@pytest.mark.parametrize(("waited", "kinds"), [(0.01, ["missing"]), (5.0, [])])
def test_a_stream_that_ends_at_once_without_a_response_counts_a_patient_one_does_not(
    waited: float, kinds: list[str]
) -> None:
    world = World()
    dialogue, _ = world.asked(PROMPT)
    world.clock.now += waited
    dialogue.close("client-disconnect")
    assert world.notes.all("failed") == kinds


def test_three_failures_send_the_next_request_elsewhere_and_the_decision_says_so() -> None:
    world = World([A, B])
    for _ in range(3):
        world.health.failure(A.key, world.clock.now)
    _, answers = world.asked(PROMPT)
    assert set_headers(answers[0])[DESTINATION] == B.host_port
    assert [(step.by, step.removed) for step in world.notes.all("decided")[0].steps] == [("cooling", (A.key,))]


def test_a_probe_is_noted_in_its_decision() -> None:
    world = World()
    for _ in range(3):
        world.health.failure(A.key, world.clock.now)
    world.clock.now += 2.0
    world.asked(PROMPT)
    assert "probe" in world.notes.all("decided")[0].notes[0]


# ---- load reports, ids, hooks of the response


def test_a_load_report_is_asked_for_now_and_then_used_and_stripped() -> None:
    world = World(load_report=True)
    dialogue, answers = world.asked(PROMPT)
    assert set_headers(answers[0])["endpoint-load-metrics-format"] == "JSON"
    report = 'JSON {"named_metrics": {"num_requests_waiting": 3.0, "kv_cache_usage_perc": 0.5}}'
    [head] = said(dialogue, response_headers(endpoint_load_metrics=report))
    assert list(head.response_headers.response.header_mutation.remove_headers) == ["endpoint-load-metrics"]
    shown = world.pool.snapshot(world.clock.now)
    assert (shown.waiting.tolist(), shown.kv_usage.tolist()) == ([3], [0.5])
    assert "endpoint-load-metrics-format" not in set_headers(world.asked(PROMPT)[1][0])
    assert "endpoint-load-metrics-format" not in set_headers(world.asked(PROMPT | {"stream": True})[1][0])


def test_a_report_nobody_asked_for_passes() -> None:
    world = World()
    dialogue, _ = world.asked(PROMPT)
    [head] = said(dialogue, response_headers(endpoint_load_metrics="TEXT named_metrics.num_requests_waiting=3"))
    assert list(head.response_headers.response.header_mutation.remove_headers) == []


def test_the_decisions_id_is_shown_when_asked_for() -> None:
    dialogue, _ = World(emit_decision_id=True).asked(PROMPT)
    [head] = said(dialogue, response_headers())
    assert set_headers(head, "response_headers")["x-epp-decision-id"] == "id-1"


def test_hooks_set_response_headers_and_the_last_messages_metadata() -> None:
    class Reporter:
        def response_headers(self, request: Request, decision: Decision, headers: Any, metadata: Any) -> dict[str, str]:
            return {"x-by": decision.picked[0].name}

        def finished(self, request: Request, decision: Decision, outcome: Outcome) -> dict[str, dict[str, float]]:
            return {"envoy.lb": {"tokens": float(outcome.usage.total_tokens if outcome.usage else 0)}}

    dialogue, _ = World(hooks=[Reporter()]).asked(PROMPT)
    [head] = said(dialogue, response_headers())
    assert set_headers(head, "response_headers")["x-by"] == "a"
    usage = b'{"usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}}'
    [last] = said(dialogue, response_body(usage, end=True))
    assert last.dynamic_metadata.fields["envoy.lb"].struct_value.fields["tokens"].number_value == 7


def test_a_response_hook_that_fails_costs_only_its_header() -> None:
    class Broken:
        def response_headers(self, *_: object) -> dict[str, str]:
            raise ValueError

    world = World(hooks=[Broken()])
    dialogue, _ = world.asked(PROMPT)
    [head] = said(dialogue, response_headers())
    assert set_headers(head, "response_headers") == {"x-went-into-resp-headers": "true"}
    assert world.notes.all("hook_failed") == ["hooked"]


# ---- slow signals


def slow_setup(value: Any, timeout_ms: float = 5_000.0) -> Any:
    provides = Provides({"x": column(0.25)}, "", False, timeout_ms)
    return setup(signals=(Measured(Bound("slow", value, ()), provides, ("x",)),))


async def talked(world: World) -> list[ProcessingResponse]:
    dialogue = world.dialogue()
    said(dialogue, request_headers())
    later = dialogue.receive(request_body(json.dumps(PROMPT).encode()).SerializeToString())
    assert not isinstance(later, list)
    return [ProcessingResponse.FromString(wire) for wire in await later]


def awaited(world: World) -> list[ProcessingResponse]:
    return asyncio.run(talked(world))


def test_a_slow_signal_delays_its_own_request_and_is_used() -> None:
    async def value() -> Any:
        await asyncio.sleep(0)
        return np.array([0.5])

    world = World(made=slow_setup(value))
    assert set_headers(awaited(world)[0])[DESTINATION] == "10.0.0.1:8000"
    assert world.notes.all("decided")[0].flaws == []


@pytest.mark.parametrize("failing", [False, True], ids=["late", "raises"])
def test_a_signal_that_is_late_or_fails_is_noted_and_the_request_goes_on(failing: bool) -> None:
    async def value() -> Any:
        if failing:
            raise ValueError("no")
        await asyncio.Event().wait()

    world = World(made=slow_setup(value, timeout_ms=1.0))
    assert set_headers(awaited(world)[0])[DESTINATION] == "10.0.0.1:8000"
    assert [flaw.rule for flaw in world.notes.all("decided")[0].flaws] == ["timeout"]


def test_a_decision_that_takes_too_long_is_503_never_a_hanging_stream() -> None:
    async def value() -> Any:
        await asyncio.Event().wait()

    world = World(made=slow_setup(value, timeout_ms=60_000.0), decision_timeout_s=0.001)
    assert refusal(awaited(world))[0] == 503
    assert world.pool.ledger.requests == 0


class SetLoop(asyncio.SelectorEventLoop):
    """Its clock is set by the test."""

    now = 0.0

    def time(self) -> float:
        return self.now


@pytest.mark.parametrize("began_ms", range(1_000, 1_100))
def test_the_deadline_is_met_by_a_clock_of_whole_milliseconds(began_ms: int) -> None:
    async def value() -> Any:
        asyncio.get_running_loop().now = (began_ms + 50) / 1000.0
        return np.array([0.5])

    with asyncio.Runner(loop_factory=SetLoop) as runner:
        runner.get_loop().now = began_ms / 1000.0
        world = World(made=slow_setup(value, timeout_ms=60_000.0), decision_timeout_s=0.05)
        assert refusal(runner.run(talked(world)))[0] == 503


def slow_world(work: list[Worked]) -> World:
    """Every call of a plug-in takes 6 ms; `work` tells, in turn, what the thread has done."""
    world = World()
    times = iter(range(10_000))
    world.router._clock = lambda: next(times) * 0.006
    world.router._worked = lambda: work.pop(0) if len(work) > 1 else work[0]
    return world


@pytest.mark.parametrize(
    "step", [Worked(0.03, 0), Worked(0.0, 1)], ids=["it computes too long", "it blocks the event loop"]
)
def test_a_plug_in_that_is_slow_three_times_in_a_row_is_suspended_for_a_while(step: Worked) -> None:
    world = slow_world([Worked(step.cpu_s * n, step.waits * n) for n in range(20)])
    for _ in range(4):
        world.asked(PROMPT)
    assert "even" in world.notes.all("suspended")
    assert "handler" not in world.notes.all("suspended")
    assert "suspended" in [flaw.rule for flaw in world.notes.all("decided")[3].flaws]
    world.clock.now += 31.0
    world.asked(PROMPT)
    assert world.notes.all("decided")[4].flaws == []


def test_the_kernel_is_not_asked_what_the_thread_did_while_all_are_quick() -> None:
    world = World()
    work = [Worked(float(n), 0) for n in range(9)]
    world.router._worked = work.pop
    for _ in range(3):
        world.asked(PROMPT)
    assert len(work) == 9


def test_a_plug_in_that_was_kept_off_the_cpu_is_not_suspended() -> None:
    world = slow_world([Worked(0.0, 0)])
    for _ in range(9):
        world.asked(PROMPT)
    assert world.notes.all("suspended") == []


def test_a_signal_that_ignores_its_cancellation_cannot_outlast_the_deadline() -> None:
    async def value() -> Any:
        while True:
            try:
                await asyncio.sleep(0.05)
                return np.array([0.5])
            except asyncio.CancelledError:
                continue

    world = World(made=slow_setup(value, timeout_ms=60_000.0), decision_timeout_s=0.001)
    assert refusal(awaited(world))[0] == 503


@pytest.mark.parametrize(("rewritten", "counts"), [(False, (3, 0)), (True, (0, 3))], ids=["as it came", "renamed"])
def test_pieces_are_counted_by_the_way_they_went(rewritten: bool, counts: tuple[int, int]) -> None:
    world = World()
    named = {"x_llm_d_model_name_rewrite": "other"} if rewritten else {}
    dialogue, _ = world.asked({"model": "m", "prompt": "hi", "stream": True}, **named)
    said(dialogue, response_headers(content_type="text/event-stream"))
    for end in (False, False, True):
        said(dialogue, response_body(b'data: {"model": "other"}\n\n', end=end))
    dialogue.close("natural")
    dialogue.close("natural")
    assert world.notes.all("passed") == [counts]


@pytest.mark.parametrize("content_type", ["text/event-stream", "Text/Event-Stream; charset=utf-8"])
def test_events_bear_the_clients_name_of_the_model_as_they_come(content_type: str) -> None:
    world = World()
    dialogue, _ = world.asked(PROMPT | {"model": "m"}, x_llm_d_model_name_rewrite="other")
    said(dialogue, response_headers(content_type=content_type))
    [answer] = said(dialogue, response_body(b'data: {"model": "other"}\n\n'))
    piece = answer.response_body.response.body_mutation.streamed_response
    assert piece.body == b'data: {"model":"m"}\n\n'
    dialogue.close("error")
    assert [outcome.streamed for outcome in world.notes.all("ended")] == [True]
