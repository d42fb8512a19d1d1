"""A request whose halves are in two processes: the same answers, the same books, and what is left when one is gone."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse

from epp.account import Account
from epp.bodies import Parsed, Parsers
from epp.bodies.passthrough import PassthroughParser
from epp.bodies.usage import Unread
from epp.plan import Measured
from epp.rules import Asked
from epp.scheduler import Bound
from epp.signals import Provides
from epp.types import Decision, Media, Outcome, Refused, Request, Usage

from .kit import (
    World,
    bodies,
    fields,
    request_body,
    request_headers,
    response_body,
    response_headers,
    set_headers,
    setup,
)
from .workers_kit import Pair, pair

PROMPT = json.dumps({"model": "m", "prompt": "Once upon a time", "max_tokens": 4}).encode()
ASKED = (request_headers(), request_body(PROMPT))
Story = Callable[[Pair], Awaitable[None]]


def told(story: Story, world: World | None = None, **habits: bool) -> None:
    """The story with a pair of processes."""

    async def run() -> None:
        async with asyncio.timeout(20), pair(world, **habits) as made:
            await story(made)

    asyncio.run(run())


class Hooks:
    """Plug-ins' hooks that tell and are told."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.outcomes: list[Outcome] = []

    def arrived(self, request: Request) -> dict[str, str]:
        self.requests.append(request)
        self.prompts = request.prompts
        return {}

    def response_headers(self, request: Request, decision: Decision, headers: Any, metadata: Any) -> dict[str, str]:
        if "x-stop" in headers:
            raise Refused(503, "stopped by a hook")
        return {"x-seen": headers["x-engine"][0]} if "x-engine" in headers else {}

    def finished(self, request: Request, decision: Decision, outcome: Outcome) -> dict[str, dict[str, object]]:
        self.outcomes.append(outcome)
        return {"mine": {"status": outcome.status}}


def test_a_request_goes_where_the_decider_says_and_its_books_are_closed_at_the_end() -> None:
    async def story(two: Pair) -> None:
        dialogue = two.dialogue()
        answers = await two.said(dialogue, *ASKED)
        assert set_headers(answers[0])["x-gateway-destination-endpoint"] == "10.0.0.1:8000"
        assert bodies(answers[1:], "request_body") == PROMPT
        assert two.world.pool.ledger.requests == 1
        await two.said(dialogue, response_headers(), response_body(b'{"usage": {"completion_tokens": 3}}', end=True))
        await two.settled()
        assert two.world.pool.ledger.requests == 0
        [outcome] = two.world.notes.all("ended")
        assert (outcome.cause, outcome.usage.completion_tokens) == ("natural", 3)

    told(story)


def test_plug_ins_see_the_same_request() -> None:
    hooks = Hooks()
    image = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
    content = [{"type": "text", "text": "What is this?"}, image]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}], "stream": True}).encode()
    asked = (request_headers(path="/v1/chat/completions", x_llm_d_inference_fairness_id="t"), request_body(body))

    async def story(two: Pair) -> None:
        await two.said(two.dialogue(), *asked)
        one = World(hooks=[hooks])
        dialogue = one.dialogue()
        for message in asked:
            dialogue.receive(message.SerializeToString())

    world = World(hooks=[hooks])
    told(story, world)
    there, here = hooks.requests
    seen = [
        {name: getattr(request, name) for name in fields(Request) if name not in {"prompts", "received_at"}}
        for request in (there, here)
    ]
    assert seen[0] == seen[1]
    assert any(isinstance(part, Media) for prompt in hooks.prompts for part in prompt.parts)


def test_prompts_stay_where_they_are_if_nobody_reads_them() -> None:
    hooks = Hooks()

    async def story(two: Pair) -> None:
        two.desk.prompts = False
        await two.said(two.dialogue(), *ASKED)

    told(story, World(hooks=[hooks]))
    assert (hooks.requests[0].body_bytes, hooks.prompts) == (len(PROMPT), ())


def test_hooks_add_headers_and_metadata_to_the_response() -> None:
    async def story(two: Pair) -> None:
        dialogue = two.dialogue()
        await two.said(dialogue, *ASKED)
        [head] = await two.said(dialogue, response_headers(x_engine="vllm"))
        assert set_headers(head, "response_headers")["x-seen"] == "vllm"
        [last] = await two.said(dialogue, response_body(b"{}", end=True))
        assert last.dynamic_metadata.fields["mine"].struct_value.fields["status"].number_value == 200

    told(story, World(hooks=[Hooks()]))


class Stranger(PassthroughParser):
    """Reads and counts what no message can hold."""

    def parse(self, body: bytes, path: str, headers: Any) -> Parsed:
        return Parsed("raw", max_output_tokens=10**30 if body == b"limit" else None)

    def reader(self, content_type: str) -> Any:
        found = Unread()
        found.usage = Usage(10**30)
        return found


def test_what_cannot_be_told_to_the_other_process_costs_its_own_request_only() -> None:
    async def story(two: Pair) -> None:
        with pytest.raises(OverflowError):
            await two.said(dialogue := two.dialogue(), request_headers(), request_body(b"limit"))
        dialogue.close("error")
        whole = (*ASKED, response_headers(), response_body(b"{}", end=True))
        assert len(await two.said(two.dialogue(), *whole)) == 4
        await two.settled()
        assert (two.world.pool.ledger.requests, two.session.requests, two.desk.open_books) == (0, {}, {})
        assert [outcome.usage for outcome in two.world.notes.all("ended")] == [None]

    told(story, World(parsers=Parsers([Stranger()])))


def test_a_hook_may_refuse_the_response_and_the_request_counts_as_failed() -> None:
    hooks = Hooks()

    async def story(two: Pair) -> None:
        dialogue = two.dialogue()
        await two.said(dialogue, *ASKED)
        [answer] = await two.said(dialogue, response_headers(x_stop="1"))
        assert answer.immediate_response.status.code == 503
        await two.settled()
        assert [outcome.cause for outcome in hooks.outcomes] == ["error"]
        assert two.world.pool.ledger.requests == 0

    told(story, World(hooks=[hooks]))


@pytest.mark.parametrize(("body", "status"), [(b"{nonsense", 400), (b'{"prompt": "x"}', 400)])
def test_a_body_that_cannot_be_read_is_refused_and_counted_where_decisions_are(body: bytes, status: int) -> None:
    async def story(two: Pair) -> None:
        [answer] = await two.said(two.dialogue(), request_headers(), request_body(body))
        assert answer.immediate_response.status.code == status
        assert two.world.notes.all("refused") == [status]

    told(story)


def test_a_body_over_the_limit_is_refused_at_the_edge_and_counted_where_decisions_are() -> None:
    async def story(two: Pair) -> None:
        [answer] = await two.said(two.dialogue(), request_headers(), request_body(b"x" * ((1 << 20) + 1)))
        assert answer.immediate_response.status.code == 413
        await two.settled()
        assert two.world.notes.all("refused") == [413]

    told(story)


def test_gaps_between_pieces_reach_the_observer_one_by_one() -> None:
    async def story(two: Pair) -> None:
        dialogue = two.dialogue()
        await two.said(dialogue, *ASKED, response_headers(content_type="text/event-stream"))
        for pause_s in (0.0, 0.25, 0.5):
            two.world.clock.now += pause_s
            await two.said(dialogue, response_body(b"data: {}\n\n"))
        dialogue.close("client-disconnect")
        await two.settled()
        assert two.world.notes.all("piece") == [0.25, 0.5]

    told(story)


def test_the_model_is_renamed_in_both_directions() -> None:
    async def story(two: Pair) -> None:
        dialogue = two.dialogue()
        answers = await two.said(dialogue, request_headers(x_llm_d_model_name_rewrite="other"), request_body(PROMPT))
        assert json.loads(bodies(answers[1:], "request_body"))["model"] == "other"
        answers = await two.said(dialogue, response_headers(), response_body(b'{"model": "other"}', end=True))
        assert json.loads(bodies(answers[1:], "response_body")) == {"model": "m"}

    told(story)


# ---- one of them is gone


def test_requests_of_an_edge_that_is_gone_are_refunded_as_errors() -> None:
    async def story(two: Pair) -> None:
        dialogues = [two.dialogue() for _ in range(3)]
        for dialogue in dialogues:
            await two.said(dialogue, *ASKED)
        assert two.world.pool.ledger.requests == 3
        await two.lose()
        assert (two.world.pool.ledger.requests, two.session.requests) == (0, {})
        assert [outcome.cause for outcome in two.world.notes.all("ended")] == ["error"] * 3

    told(story)


def test_without_a_decider_requests_get_503_and_those_on_their_way_go_on() -> None:
    async def story(two: Pair) -> None:
        under_way = two.dialogue()
        await two.said(under_way, *ASKED)
        await two.lose()
        [answer] = await two.said(two.dialogue(), *ASKED)
        assert answer.immediate_response.status.code == 503
        assert b"the process that decides is not there" in answer.immediate_response.body
        answers = await two.said(under_way, response_headers(), response_body(b"data", end=True))
        assert bodies(answers[1:], "response_body") == b"data"
        assert (two.desk.undecided, two.desk.open_books) == (1, {})

    told(story)


def test_nobody_need_look_at_the_answer_when_the_decider_dies(caplog: pytest.LogCaptureFixture) -> None:
    async def story(two: Pair) -> None:
        waiting = two.desk.open(0.0).pick(Asked({}, {}, "/", Parsed("raw")))
        await two.settled()
        await two.lose()
        del waiting
        gc.collect()
        await asyncio.sleep(0)

    told(story, slow())
    assert "never retrieved" not in caplog.text


def test_nothing_more_is_asked_of_a_decider_that_does_not_read() -> None:
    async def story(two: Pair) -> None:
        two.link.pause_writing()
        [answer] = await two.said(two.dialogue(), *ASKED)
        assert b"does not read what it is asked" in answer.immediate_response.body
        assert (answer.immediate_response.status.code, two.desk.undecided, two.desk.open_books) == (503, 1, {})
        two.link.resume_writing()
        [answer, _] = await two.said(two.dialogue(), *ASKED)
        assert not answer.HasField("immediate_response")

    told(story)


async def never() -> int:
    await asyncio.Event().wait()
    return 1


def slow() -> World:
    """A decision that waits for a signal which never comes."""
    provides = Provides({"x": 0}, "", False, 60_000)
    return World(made=setup(signals=(Measured(Bound("slow", never, ()), provides, ("x",)),)))


class Through:
    """A queue that keeps nobody waiting and may end what is on its way."""

    evicts = True

    def enter(self, account: Account, go: Callable[[], Any]) -> Any:
        return go()

    def wake(self) -> None:
        pass


def test_a_client_that_leaves_takes_its_request_out_of_the_decision() -> None:
    async def story(two: Pair) -> None:
        dialogue = two.dialogue()
        waiting = asyncio.ensure_future(two.said(dialogue, *ASKED))
        await two.settled()
        [request] = two.session.requests.values()
        waiting.cancel()
        dialogue.close("client-disconnect")
        await two.settled()
        assert request.deciding is not None
        await asyncio.wait({request.deciding})
        assert (request.deciding.cancelled(), two.session.requests) == (True, {})

    told(story, slow())


def test_a_request_that_waits_for_a_decision_gets_503_when_the_decider_is_gone() -> None:
    async def story(two: Pair) -> None:
        waiting = asyncio.ensure_future(two.said(two.dialogue(), *ASKED))
        await two.settled()
        await two.lose()
        [answer] = await waiting
        assert answer.immediate_response.status.code == 503

    told(story, slow())


def test_a_more_important_request_ends_one_on_its_way_through_both_processes() -> None:
    world = World()
    world.router.queueing = Through()  # type: ignore[assignment]

    async def story(two: Pair) -> None:
        dialogue, pushed = two.dialogue(), list[bytes]()
        dialogue.push = pushed.extend
        await two.said(dialogue, *ASKED)
        [request] = two.session.requests.values()
        request.account.evict()
        async with asyncio.timeout(10):
            while not pushed:  # noqa: ASYNC110 - the dialogue is told without an event
                await asyncio.sleep(0)
        await two.settled()
        assert ProcessingResponse.FromString(pushed[0]).immediate_response.status.code == 429
        assert world.pool.ledger.requests == 0
        assert [outcome.cause for outcome in world.notes.all("ended")] == ["evicted"]

    told(story, world)
