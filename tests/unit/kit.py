"""What tests of whole requests need: a router over a made-up pool, an observer that keeps what it hears, messages."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from inspect import getmembers_static
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

import numpy as np
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest, ProcessingResponse

from epp.bodies import Parsers
from epp.bodies.openai import OpenAIParser
from epp.bodies.passthrough import PassthroughParser
from epp.extproc.dialogue import Dialogue
from epp.extproc.held import HeldBytes
from epp.hooks import Hooks
from epp.observe import Trace
from epp.pickers import max_score_picker
from epp.plan import Setup
from epp.plugins import Plugin, PluginType
from epp.pool.health import Health
from epp.pool.table import Pool
from epp.profile_handlers import single_profile_handler
from epp.route import Router
from epp.rules import Habits, Rules
from epp.scheduler import Bound, Profile
from epp.suspension import Worked
from epp.types import Change, Decision, Endpoint, Outcome, Refused, Request, Spent

A, B = Endpoint("a", "10.0.0.1", 8000), Endpoint("b", "fd00::2", 8000)


class Notes:
    """An observer that writes everything down."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []
        self.inflight_requests = 0

    def started(self, request: Request) -> Trace | None:
        return None

    def decided(self, request: Request, decision: Decision) -> None:
        # A copy as of now: once the answer is sent, the router drops all but the picks.
        self.heard.append(("decided", copy(decision)))

    def refused(self, request: Request, refusal: Refused) -> None:
        self.heard.append(("refused", refusal.status))
        self.heard.append(("refused by", refusal.by))

    def rewritten(self, request: Request, by: str) -> None:
        self.heard.append(("rewritten", (by, request.incoming_model, request.model)))

    def inflight(self, request: Request, endpoint: Endpoint, requests: int, tokens: float) -> None:
        self.inflight_requests += requests

    def gaps(self, request: Request) -> Callable[[float], None]:
        return lambda gap_s: self.heard.append(("piece", gap_s))

    def passed(self, wrapped: int, read: int) -> None:
        self.heard.append(("passed", (wrapped, read)))

    def ended(self, request: Request, decision: Decision, outcome: Outcome) -> None:
        self.heard.append(("ended", outcome))

    def hook_failed(self, plugin: str, error: BaseException) -> None:
        self.heard.append(("hook_failed", plugin))

    def suspended(self, spent: Spent) -> None:
        self.heard.append(("suspended", spent.by))

    def failed(self, key: str, kind: str) -> None:
        self.heard.append(("failed", kind))

    def decision_id(self, decision: Decision) -> str:
        return "id-1"

    def all(self, kind: str) -> list[Any]:
        return [what for name, what in self.heard if name == kind]


COMPUTED = {"margin", "run"}
"""What a Decision or Run works out when asked; in a compiled class nothing tells it from what is held."""


class Clock:
    """Seconds, moved by hand, and by `step` each time that somebody looks."""

    def __init__(self) -> None:
        self.now = 100.0
        self.step = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def setup(**parts: Any) -> Setup:
    scorer = Bound("even", lambda e: np.ones(len(e)), ("endpoints",))
    profile = Profile("default", (), ((scorer, 1.0),), Bound("picker", max_score_picker, ("scores", "rng")))
    handler = Bound("handler", single_profile_handler, ("request", "profiles", "runs"))
    return Setup(**{"plugins": {}, "profiles": {"default": profile}, "handler": handler, "primary": None, **parts})


def fields(record: type) -> list[str]:
    """What its instances hold, compiled or not."""
    kinds = (MemberDescriptorType, GetSetDescriptorType)
    found = [name for name, member in getmembers_static(record) if isinstance(member, kinds)]
    return [name for name in found if name not in COMPUTED]


def hooked(instance: object, name: str = "hooked") -> Plugin:
    return Plugin(name, PluginType(name, ("hook",), type(instance), (), "tests"), instance, {})


class World:
    """A router over `endpoints` and everything around it."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint] = (A,),
        *,
        made: Setup | None = None,
        hooks: Iterable[object] = (),
        parsers: Parsers | None = None,
        **habits: Any,
    ) -> None:
        self.clock, self.notes, self.pool = Clock(), Notes(), Pool()
        self.pool.apply(Change(present=tuple(endpoints)))
        self.health = Health(random.Random(0))
        self.held = HeldBytes(body_limit=1 << 20, total_limit=1 << 21)
        rules_setup = made or setup()
        ticks = itertools.count()
        self.worked = Worked(0.0, 0)
        self.router = Router(
            Rules(
                rules_setup,
                parsers or Parsers([OpenAIParser(), PassthroughParser()]),
                Hooks([hooked(hook) for hook in hooks]),
                rules_setup.columns,
            ),
            self.pool,
            self.health,
            observer=self.notes,
            rng=np.random.default_rng(0),
            now=self.clock,
            clock=lambda: next(ticks) * 1e-6,
            worked=lambda: self.worked,
            habits=Habits(**habits),
        )

    def dialogue(self) -> Dialogue:
        return Dialogue(self.router, self.held)

    def asked(self, body: object, **headers: str) -> tuple[Dialogue, list[ProcessingResponse]]:
        """A request with a JSON (or raw bytes) body, up to its answer."""
        dialogue = self.dialogue()
        answers = said(dialogue, request_headers(**headers))
        answers += said(dialogue, request_body(body if isinstance(body, bytes) else json.dumps(body).encode()))
        return dialogue, answers


def said(dialogue: Dialogue, message: ProcessingRequest) -> list[ProcessingResponse]:
    replies = dialogue.receive(message.SerializeToString())
    assert isinstance(replies, list)
    dialogue.sent()
    return [ProcessingResponse.FromString(wire) for wire in replies]


def with_headers(message: Any, headers: Mapping[str, str]) -> None:
    for key, value in headers.items():
        option = message.headers.headers.add()
        option.key, option.raw_value = key, value.encode()


def request_headers(*, end: bool = False, path: str = "/v1/completions", **headers: str) -> ProcessingRequest:
    message = ProcessingRequest()
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    with_headers(message.request_headers, {":path": path, ":method": "POST", "x-request-id": "r1"} | named)
    message.request_headers.end_of_stream = end
    return message


def request_body(body: bytes, *, end: bool = True) -> ProcessingRequest:
    message = ProcessingRequest()
    message.request_body.body, message.request_body.end_of_stream = body, end
    return message


def response_headers(status: int = 200, *, end: bool = False, **headers: str) -> ProcessingRequest:
    message = ProcessingRequest()
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    defaults = {"content-type": "application/json", "x-envoy-upstream-service-time": "1"}
    with_headers(message.response_headers, {":status": str(status)} | defaults | named)
    message.response_headers.end_of_stream = end
    return message


def response_body(body: bytes, *, end: bool = False) -> ProcessingRequest:
    message = ProcessingRequest()
    message.response_body.body, message.response_body.end_of_stream = body, end
    return message


def set_headers(answer: ProcessingResponse, kind: str = "request_headers") -> dict[str, str]:
    mutation = getattr(answer, kind).response.header_mutation
    return {option.header.key: option.header.raw_value.decode() for option in mutation.set_headers}


def bodies(answers: Iterable[ProcessingResponse], kind: str) -> bytes:
    return b"".join(getattr(a, kind).response.body_mutation.streamed_response.body for a in answers)
