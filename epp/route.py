"""The life of a request: admit, schedule, charge, settle. One Router per pool, one Account per request.

The common way from the last body piece to the answer is synchronous; only a slow signal makes `pick` a coroutine.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np

from epp import headers as names
from epp.account import Account
from epp.admission import Queueing
from epp.bodies.parsed import LONGEST_MODEL, Parsed
from epp.bodies.registry import Parsers
from epp.flow.admission import admit
from epp.flow.saturation import Saturation
from epp.headers import Metadata
from epp.observe import Observer
from epp.plan import Given
from epp.pool.health import Health
from epp.pool.table import Pool
from epp.profiles import Wait, any_endpoint, decide
from epp.rewrites import Steering
from epp.rules import Asked, Forward, Habits, Rules
from epp.suspension import SLOW_S, Suspensions, Worked, thread_worked
from epp.types import Decision, Endpoints, Mask, Refused, Request
from epp.waiting import settled

LOAD_REPORT_S = 1.0
"""An endpoint is asked for its load in a response header at most this often."""
TICK_S = 0.001
"""Of uvloop's clock: a timer may fire when the clock, rounded to it, is still a bit of a float short of its time."""


class Router:
    """Decides where requests go and keeps the books: ledger, health, suspensions."""

    def __init__(
        self,
        rules: Rules,
        pool: Pool,
        health: Health,
        *,
        observer: Observer,
        rng: np.random.Generator,
        now: Callable[[], float],
        clock: Callable[[], float],
        worked: Callable[[], Worked] = thread_worked,
        habits: Habits,
    ) -> None:
        self.rules = rules
        self.pool = pool
        self.health = health
        self.observer = observer
        self.now = now
        self.habits = habits
        self.suspensions = Suspensions()
        self.steering = Steering()
        """Swapped as a whole when objectives or rewrites change."""
        self.queueing: Queueing | None = None
        """None with the gate flowControl shut: then sheddable requests alone are refused, by saturation."""
        self.saturation: Saturation | None = None
        self._rng = rng
        self._clock = clock
        self._worked = worked
        self._worked_before: Worked | None = None
        """What the thread had done when the latest decision began; None = not asked, which costs a system call."""
        self._asked_load: dict[str, float] = {}

    @property
    def parsers(self) -> Parsers:
        return self.rules.parsers

    def open(self, received_at: float) -> Account:
        """A request's headers have arrived."""
        return Account(self, self.rules, received_at)

    @property
    def evicts(self) -> bool:
        return self.queueing is not None and self.queueing.evicts

    def passed(self, wrapped: int, read: int) -> None:
        self.observer.passed(wrapped, read)

    def pick(self, account: Account, asked: Asked) -> Forward | Awaitable[Forward]:
        """Choose. Raises Refused, or returns a coroutine that may."""
        request = account.request = self._request(asked, account.received_at)
        account.trace = self.observer.started(request)
        try:
            if asked.refusal is not None:
                raise asked.refusal
            if asked.bodiless:
                return self._bodiless(account, asked.metadata)
            self._fill(request, asked)
            self._arrive(account)
            return self._admit(account, asked)
        except Refused as refusal:
            account.refuse(refusal)
            raise

    def _request(self, asked: Asked, received_at: float) -> Request:
        headers = asked.headers
        given = headers.get(names.REQUEST_ID)
        request_id = (given[-1] if given else "") or str(uuid.uuid4())
        if names.STEERING.isdisjoint(headers):
            # As nearly all requests: nine look-ups spared.
            priority = self.steering.objectives.get("", 0)
            return Request(id=request_id, path=asked.path, headers=headers, priority=priority, received_at=received_at)
        objective = names.first(headers, names.OBJECTIVE)
        return Request(
            id=request_id,
            path=asked.path,
            headers=headers,
            objective=objective,
            priority=self.steering.objectives.get(objective, 0),
            fairness_id=names.first(headers, names.FAIRNESS),
            slo_ttft_ms=names.number(headers, names.SLO_TTFT),
            slo_tpot_ms=names.number(headers, names.SLO_TPOT),
            received_at=received_at,
        )

    def _fill(self, request: Request, asked: Asked) -> None:
        """What the body tells of the request; without one (the mode hides it) only the headers count."""
        parsed = asked.parsed
        request.body_bytes = asked.body_bytes
        asked_for = names.first(request.headers, names.REWRITE) or parsed.model
        if max(len(parsed.model), len(asked_for)) > LONGEST_MODEL:
            raise Refused(400, f"the name of the model is over {LONGEST_MODEL} characters", by="parser")
        request.incoming_model, request.model = parsed.model, asked_for
        rule = self.steering.rewrites.find(parsed.model) if parsed.rewritable else None
        if rule is not None:
            request.model = rule.model(self._rng.random())
            self.observer.rewritten(request, rule.by)
        if parsed.rewritable and not request.model:
            raise Refused(400, "model not found in request body", by="parser")
        request.stream = parsed.stream
        request.prompts = parsed.prompts
        request.max_output_tokens = parsed.max_output_tokens
        request.cache_salt = parsed.cache_salt

    def _arrive(self, account: Account) -> None:
        request = account.request
        account.rules.hooks.arrived(request, self.observer.hook_failed)
        request.fairness_id = request.fairness_id or request.attributes.get("agent-identity", "") or "default-flow"

    def _admit(self, account: Account, asked: Asked) -> Forward | Awaitable[Forward]:
        if self.queueing is not None:
            return self.queueing.enter(account, partial(self._decide, account, asked))
        if account.request.priority < 0 and self.saturation is not None:
            everyone = self.pool.snapshot(self.now())
            subset = self._subset(asked.metadata, everyone)
            candidates = everyone if subset is None else everyone.take(subset.nonzero()[0])
            admit(account.request, candidates, self.saturation)
        return self._decide(account, asked)

    def _subset(self, metadata: Metadata, endpoints: Endpoints) -> Mask | None:
        return names.subset(metadata, endpoints) if metadata and self.habits.subset_filter else None

    def wake(self) -> None:
        """Something that may free a place has happened."""
        if self.queueing is not None:
            self.queueing.wake()

    def _given(self, request: Request, metadata: Metadata) -> Given:
        now = self.now()
        endpoints = self.pool.snapshot(now)
        return Given(
            request,
            endpoints,
            now,
            self._rng,
            self._clock,
            subset=self._subset(metadata, endpoints),
            cooling=self.health.left_out(endpoints.rows, now),
            suspended=self.suspensions.names(now),
        )

    def _bodiless(self, account: Account, metadata: Metadata) -> Forward:
        decision = any_endpoint(self._given(account.request, metadata))
        account.decision = decision
        self._probe(decision)
        headers = self._own_headers(account)
        self.observer.decided(account.request, decision)
        account.answered()
        shown = self._shown(decision)
        return Forward(decision.picked[0].host_port, headers, bodiless=True, response_headers=shown)

    def _decide(self, account: Account, asked: Asked) -> Forward | Awaitable[Forward]:
        # The first slow decision of a row is taken at its word; those after it must prove that they worked.
        self._worked_before = self._worked() if self.suspensions.watching else None
        rules = account.rules
        given = self._given(account.request, asked.metadata)
        decision = decide(rules.setup, given, rules.columns)
        if isinstance(decision, Decision):
            return self._decided(account, asked, decision)
        if self.queueing is not None:
            # Or all who wait would follow it out of the queue before it is charged.
            account.hold(given.endpoints.records[int(given.endpoints.inflight.argmin())])
        return self._decide_slowly(account, asked, decision)

    async def _decide_slowly(self, account: Account, asked: Asked, waiting: Wait) -> Forward:
        loop = asyncio.get_running_loop()
        end = loop.time() + self.habits.decision_timeout_s
        try:
            slow = next(waiting)
            while True:
                limit_s = min(slow.timeout_ms / 1000.0, end - loop.time())
                answer = await settled(slow, limit_s, self.observer.hook_failed)
                if loop.time() >= end - TICK_S / 2:
                    limit = f"{self.habits.decision_timeout_s:g} s (--decision-timeout)"
                    raise Refused(503, f"no decision within {limit}", by="deadline")
                slow = waiting.send(answer)
        except StopIteration as done:
            return self._decided(account, asked, done.value)
        except Refused as refusal:
            account.refuse(refusal)
            raise

    def _decided(self, account: Account, asked: Asked, decision: Decision) -> Forward:
        request, parsed = account.request, asked.parsed
        account.decision = decision
        if "prefer" in request.headers and names.asks_conditional(request.headers):
            _demand_cached(decision)
        headers = self._own_headers(account)
        headers.update(account.rules.hooks.picked(request, decision))
        account.charge(decision)
        self._probe(decision)
        headers.update(self._load_question(parsed, decision))
        self.observer.decided(request, decision)
        if account.trace is not None:
            account.trace.decided(decision)
        self._suspend(decision)
        picked = decision.picked
        changed = parsed.rewritable and request.model != request.incoming_model
        forward = Forward(
            picked[0].host_port if len(picked) == 1 else ",".join([endpoint.host_port for endpoint in picked]),
            headers,
            metadata=self._scores(decision),
            model=request.model if changed else "",
            response_headers=self._shown(decision),
        )
        account.answered()
        return forward

    def _shown(self, decision: Decision) -> dict[str, str]:
        """For the client."""
        return {"x-epp-decision-id": self.observer.decision_id(decision)} if self.habits.emit_decision_id else {}

    def _probe(self, decision: Decision) -> None:
        if self.health.picked(decision.picked[0].key, decision.decided_at):
            decision.notes.append(f"probe: {decision.picked[0].key} was cooling and is tried with this request")

    def _own_headers(self, account: Account) -> dict[str, str]:
        request = account.request
        own = {} if names.REQUEST_ID in request.headers else {names.REQUEST_ID: request.id}
        if account.trace is not None:
            own.update(account.trace.headers())
        return own

    def _load_question(self, parsed: Parsed, decision: Decision) -> dict[str, str]:
        """Ask the engine to report its load with the answer, now and then, where it can."""
        if not self.habits.load_report or parsed.stream or parsed.api not in {"chat", "completions"}:
            return {}
        key = decision.picked[0].key
        if decision.decided_at - self._asked_load.get(key, -LOAD_REPORT_S) < LOAD_REPORT_S:
            return {}
        if len(self._asked_load) > 2 * len(self.pool):
            self._asked_load.clear()
        self._asked_load[key] = decision.decided_at
        return {names.LOAD_FORMAT: "JSON"}

    def _scores(self, decision: Decision) -> Metadata:
        if not self.habits.emit_scores:
            return {}
        run = decision.run
        scores = {e.host_port: float(total) for e, total in zip(run.candidates, run.totals, strict=True)}
        return {"envoy.lb": {f"{names.DESTINATION}-scores": scores}}

    def _suspend(self, decision: Decision) -> None:
        if decision.took_s <= SLOW_S and not self.suspensions.watching:
            return
        before = self._worked_before
        slow = any(spent.seconds > SLOW_S for spent in decision.spent)
        if slow and before is not None and not self._worked().since(before, SLOW_S):
            return
        for spent in self.suspensions.note(decision.spent, decision.decided_at):
            self.observer.suspended(spent)


def _demand_cached(decision: Decision) -> None:
    """`Prefer: if-available`: the primary endpoint must hold some of the prompt."""
    cached = decision.signals.get("cached_blocks")
    if cached is None or not cached[decision.run.picked_rows[0]] > 0:
        raise Refused(412, "no decode worker has the requested KV cache", by="prefer")
