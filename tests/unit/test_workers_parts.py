"""What edges share, who is sent prompts, and frames that come in pieces."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from epp.bodies.parsed import Parsed
from epp.extproc.held import HeldBytes
from epp.options import parse
from epp.plugins import Plugin, PluginType
from epp.rules import Asked
from epp.types import Refused, Request
from epp.workers import messages as say
from epp.workers.edge import Edge
from epp.workers.link import LENGTH, MOST_UNREAD_BYTES, Link, joined
from epp.workers.reads import reads_prompts
from epp.workers.shared import Elsewhere, SharedCounts, Slot
from scorers.load import queue_scorer
from scorers.tokens import TokenProducer

ROOT = Path(__file__).parents[2]


def held(counts: SharedCounts, number: int) -> HeldBytes:
    return HeldBytes(body_limit=100, total_limit=100, shared=Slot(counts, number))


def test_the_limit_for_held_bytes_is_one_for_all_edges() -> None:
    counts = SharedCounts.made(2)
    one, other = held(counts, 0), held(counts, 1)
    one.take(60, 0)
    with pytest.raises(Refused, match=r"together are over 100 bytes \(--max-held-bytes\)"):
        other.take(41, 0)
    other.take(40, 0)
    watcher = HeldBytes(body_limit=0, total_limit=0, shared=Elsewhere(counts))
    assert (watcher.everywhere, one.held, other.held) == (100, 60, 40)


def test_what_an_edge_held_that_died_can_be_held_by_others() -> None:
    counts = SharedCounts.made(2)
    held(counts, 0).take(100, 0)
    counts[0] = 0
    held(counts, 1).take(100, 0)
    assert counts.sum == 100


def plugin(target: object, *places: str) -> Plugin:
    return Plugin("p", PluginType("p", places, target, (), "tests"), target, {})  # type: ignore[arg-type]


def strangers_scorer(request: Request) -> None: ...
def of_endpoints(endpoints: object) -> None: ...


def modest(request: Request) -> None: ...


modest.reads_prompts = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("target", "places", "reads"),
    [
        (TokenProducer, ("signal",), True),
        (queue_scorer, ("scorer",), False),
        (strangers_scorer, ("scorer",), True),
        (of_endpoints, ("scorer",), False),
        (modest, ("scorer",), False),
    ],
    ids=["tokens", "ours", "a stranger's", "a stranger's without request", "a stranger's that says no"],
)
def test_prompts_are_sent_where_a_plug_in_may_read_them(target: object, places: tuple[str, ...], reads: bool) -> None:
    assert reads_prompts(plugin(target, *places)) is reads


def test_built_in_plug_ins_that_read_prompts_say_so() -> None:
    files = [path for path in (ROOT / "scorers").glob("*.py") if "request.prompts" in path.read_text()]
    # packing.py works for tokens.py, which says so.
    assert [path.name for path in files if "reads_prompts = True" not in path.read_text()] == ["packing.py"]
    assert TokenProducer.reads_prompts


@pytest.mark.parametrize("step", [1, 3, 7, 1_000])
def test_frames_cut_anywhere_give_the_messages_in_order(step: int) -> None:
    async def heard() -> list[say.FromEdge]:
        got: list[say.FromEdge] = []
        link = Link(say.from_edge, got.append, lambda: None)
        frames = [say.encode([say.Begun(1), say.Begun(2)]), say.encode([say.Begun(3)])]
        wire = b"".join(LENGTH.pack(len(frame)) + frame for frame in frames)
        for at in range(0, len(wire), step):
            link.data_received(wire[at : at + step])
        return got

    assert asyncio.run(heard()) == [say.Begun(1), say.Begun(2), say.Begun(3)]


def test_a_link_is_full_while_much_that_it_said_is_unread() -> None:
    async def fullness() -> list[bool]:
        one, other = socket.socketpair()
        link = await joined(one, say.from_decider, lambda _: None, lambda: None)
        empty = link.full
        link.say(say.Gaps(1, bytes(MOST_UNREAD_BYTES + (1 << 24))))
        link.flush()
        full = link.full
        other.close()
        link.close()
        return [empty, full]

    assert asyncio.run(fullness()) == [False, True]


def test_a_link_is_known_before_what_waits_in_its_socket_is_heard() -> None:
    async def told() -> list[str]:
        got: list[str] = []
        heard = asyncio.Event()
        one, other = socket.socketpair()
        frame = say.encode([say.Begun(1)])
        one.sendall(LENGTH.pack(len(frame)) + frame)

        def hear(_: say.FromEdge) -> None:
            got.append("heard")
            heard.set()

        def begun(link: Link[say.FromEdge]) -> None:
            got.append(f"begun, alive: {link.alive}")

        link = await joined(other, say.from_edge, hear, lambda: None, begun)
        await heard.wait()
        link.close()
        one.close()
        return got

    assert asyncio.run(told()) == ["begun, alive: True", "heard"]


def test_what_the_decider_before_was_asked_is_answered_when_another_is_met_first() -> None:
    async def status() -> int:
        pairs = [socket.socketpair() for _ in range(3)]
        edge = Edge(parse(["--config-text={}", "--secure-serving=false"], {}), pairs[0][0])
        await edge._join(pairs[1][0])
        waiting = edge._desk.open(0.0).pick(Asked({}, {}, "/", Parsed("raw")))
        await edge._join(pairs[2][0])
        with pytest.raises(Refused) as refused:
            async with asyncio.timeout(10):
                await waiting
        for pair in pairs:
            pair[1].close()
        await edge.run()
        return refused.value.status

    assert asyncio.run(status()) == 503


@pytest.mark.parametrize("count", [1, 15, 16, 70_000])
def test_messages_encoded_one_by_one_are_an_array(count: int) -> None:
    messages: list[say.FromEdge] = [say.Begun(number) for number in range(count)]
    frame = say.array_head(count) + b"".join(map(say.encode, messages))
    assert say.from_edge(frame) == messages
    assert say.apart(frame) == list(map(say.encode, messages))


def test_a_message_that_cannot_be_read_does_not_take_others_with_it() -> None:
    async def heard() -> list[say.FromEdge]:
        got: list[say.FromEdge] = []
        link = Link(say.from_edge, got.append, lambda: None)
        frame = say.encode([say.Begun(1), say.Begun("two"), say.Begun(3)])  # type: ignore[arg-type]
        link.data_received(LENGTH.pack(len(frame)) + frame)
        return got

    assert asyncio.run(heard()) == [say.Begun(1), say.Begun(3)]
