"""Clients drawn by chance: some speak frames of all kinds, some bytes of no kind, some HTTP/2 as it should be."""

from __future__ import annotations

import pytest
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from epp.extproc import http2_upkeep as upkeep
from epp.extproc.http2_codes import Status
from tests.fuzz.http2 import WHATS, Player, Step, answer, wire_of

from .http2_kit import HELLO, Client

NUMBERS = st.integers(0, 255)
PAYLOADS = st.one_of(
    st.binary(max_size=30), st.sampled_from([bytes(4), bytes(5), bytes(8), bytes(6), b"\x00\x00\x00\x00\x01"])
)
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.tuples(st.sampled_from(WHATS), st.integers(0, 11), NUMBERS, st.integers(0, 9), PAYLOADS), max_size=40
)


@pytest.mark.parametrize("greeted", [True, False])
@given(steps=STEPS)
@settings(max_examples=400)
def test_whatever_a_client_does_nothing_leaks_and_nothing_breaks(greeted: bool, steps: list[Step]) -> None:
    Player().play(steps, greeted=greeted)


@given(steps=STEPS, cuts=st.lists(st.integers(1, 40), min_size=1))
@settings(max_examples=200)
def test_where_the_bytes_are_cut_changes_no_call(steps: list[Step], cuts: list[int]) -> None:
    wire = HELLO + b"".join(map(wire_of, steps))
    whole, cut = Player(), Player()
    whole.bare.say(wire)
    at = 0
    while at < len(wire):
        size = cuts[at % len(cuts)] * 40
        cut.bare.say(wire[at : at + size])
        at += size
    assert cut.bare.calls.got == whole.bare.calls.got
    assert [call.status for call in cut.bare.calls.calls] == [call.status for call in whole.bare.calls.calls]


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_bytes_of_no_kind_are_survived(wire: bytes) -> None:
    Player().play([("raw", 0, 0, 0, wire)], greeted=True)


class Proper(RuleBasedStateMachine):
    """A client as it should be, h2: it raises if it is told what no server may say."""

    def __init__(self) -> None:
        super().__init__()
        self.client = Client(answer)
        self.live: dict[int, list[bytes]] = {}
        """Open stream → the messages it has sent."""
        self.paused = False

    def _one(self, pick: int) -> int:
        return sorted(self.live)[pick % len(self.live)]

    @precondition(lambda self: len(self.live) < 5)
    @rule()
    def opens(self) -> None:
        self.live[self.client.open()] = []

    @precondition(lambda self: self.live)
    @rule(pick=NUMBERS, wire=st.one_of(st.binary(max_size=300), st.sampled_from([b"later", b"big"])))
    def says(self, pick: int, wire: bytes) -> None:
        number = self._one(pick)
        if self.client.h2.local_flow_control_window(number) > len(wire) + 5:
            self.client.send(number, wire)
            self.live[number].append(wire)

    @precondition(lambda self: self.live)
    @rule(pick=NUMBERS)
    def resets(self, pick: int) -> None:
        number = self._one(pick)
        self.client.h2.reset_stream(number)
        self.client.exchange()
        del self.live[number]

    @rule(size=st.integers(0, 100_000))
    def changes_its_window(self, size: int) -> None:
        self.client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: size})
        self.client.exchange()

    @rule()
    def decides(self) -> None:
        for one in [one for one in self.client.calls.later if one.open]:
            one.open = False
            one.done([b"later"])
        self.client.exchange()

    @rule()
    def is_slow(self) -> None:
        self.paused = not self.paused
        (self.client.streams.pause if self.paused else self.client.streams.resume)()
        self.client.exchange()

    @rule(seconds=st.integers(1, 30))
    def waits(self, seconds: int) -> None:
        self.client.clock.now += seconds
        self.client.h2.ping(b"12345678")
        self.client.exchange()
        upkeep.tick(self.client.connection, self.client.clock.now)
        self.client.exchange()

    def teardown(self) -> None:
        if self.paused:
            self.is_slow()
        for _ in range(60):
            self._widen()
            self.decides()
        for number, sent in self.live.items():
            if number in self.client.resets():
                continue
            self.client.h2.end_stream(number)
            self.client.exchange()
            expected = [b"y" * 50_000 if wire == b"big" else wire for wire in sent]
            assert self.client.got(number) == expected
            assert self.client.status(number) == Status.OK
        assert (self.client.calls.open, self.client.budget.held) == (0, 0)

    def _widen(self) -> None:
        h2 = self.client.h2
        h2.increment_flow_control_window(1 << 16)
        for number in self.live:
            if number not in self.client.resets():
                h2.increment_flow_control_window(1 << 16, number)
        self.client.exchange()


TestProper = Proper.TestCase
TestProper.settings = settings(max_examples=60, stateful_step_count=30)
