"""Laws of a queue two edges share: one answer each, no more on their way than seats, and nothing left behind."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from epp.extproc.dialogue import Dialogue
from tests.unit.test_admission import Queued
from tests.unit.test_admission_across import Answer, Edges, quiet, told

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.integers(0, 1)),
        st.tuples(st.just("enter"), st.integers(0, 1)),
        st.tuples(st.just("leave"), st.integers(0, 20)),
        st.tuples(st.just("seats"), st.integers(1, 4)),
        st.tuples(st.just("die"), st.integers(0, 1)),
    ),
    max_size=30,
)


class Resized(Queued):
    """Its seats change, and it checks every charge against them."""

    def __init__(self) -> None:
        super().__init__()
        self.seats = 1
        self.flow._saturation = self.saturation  # in place of a fixed number of seats

    def saturation(self) -> float:
        return self.pool.ledger.requests / self.seats


class Crowd:
    """Who came, and what became of them."""

    def __init__(self, at: Edges) -> None:
        self.at = at
        self.world: Resized = at.world  # type: ignore[assignment]  # it is told so
        self.here: list[tuple[Dialogue, Answer]] = []
        self.came: list[Answer] = []

    async def step(self, what: str, which: int) -> None:
        running = self.world.pool.ledger.requests
        await getattr(self, what)(which)
        await quiet()
        assert self.world.pool.ledger.requests <= max(self.world.seats, running)

    async def enter(self, edge: int) -> None:
        dialogue, answer = await self.at.enter(edge)
        self.here.append((dialogue, answer))
        self.came.append(answer)

    async def leave(self, which: int) -> None:
        """The client goes: its response ends, or it waits no longer."""
        if self.here:
            dialogue, answer = self.here.pop(which % len(self.here))
            answer.cancel()
            dialogue.close("client-disconnect")

    async def seats(self, number: int) -> None:
        self.world.seats = number
        assert self.world.router.queueing is not None
        self.world.router.queueing.wake()

    async def die(self, edge: int) -> None:
        if self.at.pairs[edge].link.alive:
            await self.at.pairs[edge].lose()

    async def judged(self) -> None:
        """Everybody goes; then there is nothing left, and who did not go before had one answer."""
        self.world.seats = len(self.came) + 1
        await self.seats(self.world.seats)
        await quiet()
        assert self.world.flow.state()["requests"] == 0
        assert all(answer.done() for answer in self.came), "neither answered nor gone"
        died = not all(pair.link.alive for pair in self.at.pairs)
        for _, answer in self.here:  # raises for one that was cancelled though its client stayed
            went = answer.result().HasField("request_headers")
            assert went or (died and answer.result().immediate_response.status.code == 503)
        while self.here:
            await self.leave(0)
        await quiet()
        assert (self.world.pool.ledger.requests, self.world.notes.inflight_requests) == (0, 0)
        assert not any(pair.session.requests or pair.desk.open_books for pair in self.at.pairs)


@settings(max_examples=60)
@given(steps=STEPS)
def test_whatever_comes_goes_dies_or_changes_everybody_has_one_answer_and_nothing_is_left(
    steps: list[tuple[str, int]],
) -> None:
    async def story(at: Edges) -> None:
        crowd = Crowd(at)
        for what, which in steps:
            await crowd.step(what, which)
        await crowd.judged()

    told(story, 2, Resized)
