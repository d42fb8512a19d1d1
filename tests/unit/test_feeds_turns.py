"""Who works in which turn of the loop."""

from __future__ import annotations

import asyncio

from epp.feeds.turns import Turns


async def turn_of_each(count: int, cancelled: frozenset[int] = frozenset()) -> dict[int, int]:
    """In which turn of the loop each of so many, who all ask in the same, goes on."""
    turns, told, now = Turns(), {}, 0

    async def work(number: int) -> None:
        await turns.mine()
        told[number] = now

    tasks = [asyncio.create_task(work(number)) for number in range(count)]
    for now in range(2 * count + 2):
        await asyncio.sleep(0)
        if now == 0:
            for number in cancelled:
                tasks[number].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return told


def test_each_turn_of_the_loop_goes_on_with_one_in_the_order_asked() -> None:
    told = asyncio.run(turn_of_each(4))
    assert list(told) == [0, 1, 2, 3]
    assert len(set(told.values())) == 4


def test_one_who_waits_no_more_is_passed_over() -> None:
    assert list(asyncio.run(turn_of_each(4, frozenset({1, 2})))) == [0, 3]


def test_after_a_while_the_next_goes_on_at_once() -> None:
    async def main() -> None:
        turns = Turns()
        await turns.mine()
        for _ in range(3):
            await asyncio.sleep(0)
        mine = asyncio.ensure_future(turns.mine())
        await asyncio.sleep(0)
        assert mine.done()

    asyncio.run(main())
