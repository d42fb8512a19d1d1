from hypothesis import given
from hypothesis import strategies as st

from sim.blocks import BlockPool


def left(pool: BlockPool, chain: list[int]) -> list[int]:
    """Blocks of a chain that are cached, whatever their order."""
    return [block for block in chain if pool.cached([block], 1)[0]]


def used_once(size: int, *chains: list[int]) -> BlockPool:
    """A pool in which each chain was held and let go, in this order."""
    pool = BlockPool(size)
    for chain in chains:
        hits, _ = pool.cached(chain, len(chain))
        pool.release(pool.take(chain, hits, len(chain)), 0, ())
    return pool


def test_a_prefix_is_found_up_to_the_first_gap() -> None:
    pool = used_once(10, [1, 2, 3])
    assert pool.cached([1, 2, 9, 3], 4) == (2, 2)
    assert pool.cached([1, 2, 3], 1) == (1, 1)


def test_a_held_prefix_costs_no_further_blocks() -> None:
    pool = BlockPool(10)
    pool.take([1, 2, 3], 0, 4)
    assert pool.cached([1, 2, 3], 3) == (3, 0)
    pool.take([1, 2, 3], 3, 4)
    assert (pool.used, pool.available) == (5, 5)


def test_of_one_request_the_last_block_is_evicted_first() -> None:
    pool = used_once(4, [1, 2, 3, 4])
    pool.take([], 0, 2)
    assert left(pool, [1, 2, 3, 4]) == [1, 2]


def test_of_two_requests_the_one_used_last_stays() -> None:
    pool = used_once(4, [1, 2], [5, 6], [1, 2])
    pool.take([], 0, 2)
    assert left(pool, [1, 2, 5, 6]) == [1, 2]


def test_a_block_computed_twice_is_cached_once() -> None:
    pool = used_once(10, [1, 2])
    held = pool.take([1, 2], 0, 2)
    assert held == []
    assert (pool.used, pool.idle) == (2, 2)
    pool.release(held, 2, ())
    assert (pool.used, pool.idle) == (0, 2)


def test_grown_blocks_stay_cached() -> None:
    pool = BlockPool(10)
    held = pool.take([1], 0, 2)
    pool.grow(2)
    pool.release(held, 3, [2, 3])
    assert pool.cached([1, 2, 3], 3) == (3, 3)
    assert pool.used == 0


@given(st.lists(st.lists(st.integers(0, 9), unique=True, max_size=6), max_size=30), st.integers(7, 12))
def test_used_and_idle_fit_into_the_pool_and_all_comes_back(chains: list[list[int]], size: int) -> None:
    pool, holders = BlockPool(size), []
    for chain in chains:
        hits, idle = pool.cached(chain, len(chain))
        while len(chain) + 1 - hits + idle > pool.available:
            pool.release(*holders.pop(0), ())
            hits, idle = pool.cached(chain, len(chain))
        held = pool.take(chain, hits, len(chain) + 1)
        holders.append((held, len(chain) + 1 - len(held)))
        assert pool.used + pool.idle <= size
    for held, private in holders:
        pool.release(held, private, ())
    assert pool.used == 0
