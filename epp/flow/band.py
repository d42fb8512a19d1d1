"""Who waits: a band for each priority, a flow in it for each fairness id, and in a flow the requests in their order.

Everything here costs the same however many requests wait, but for the logarithm of a heap.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush

from epp.flow.policies import Fairness, Ordering
from epp.flow.settings import BandRules
from epp.flow.ticket import Key, Ticket

SPARE = 32
"""Places of requests that have left, beyond as many as there are requests, before they are cleared away."""


class Flow:
    """The requests of one fairness id that wait in one band. Policies find it only while there are some."""

    __slots__ = ("_count", "_keys", "_late", "_waiting", "bytes", "head", "id", "priority")

    def __init__(self, fairness_id: str, priority: int, waiting: Mapping[float, Ticket]) -> None:
        self.id = fairness_id
        self.priority = priority
        self.bytes = 0
        self.head: Ticket | None = None
        """Who goes next."""
        self._waiting = waiting
        self._count = 0
        self._keys: deque[Key] = deque()
        """In order, for orders by arrival nearly all there are."""
        self._late: list[Key] = []
        """A heap of those that came after one with a higher key."""

    def __len__(self) -> int:
        return self._count

    def put(self, ticket: Ticket) -> None:
        key = ticket.key
        if not self._keys or self._keys[-1] < key:
            self._keys.append(key)
        else:
            heappush(self._late, key)
        self._count += 1
        self.bytes += ticket.size
        if self.head is None or key < self.head.key:
            self.head = ticket

    def remove(self, ticket: Ticket) -> None:
        """Take out one that is not in `waiting` any more."""
        self._count -= 1
        self.bytes -= ticket.size
        if ticket is self.head:
            self._advance()
        elif len(self._keys) + len(self._late) > 2 * self._count + SPARE:
            self._keys = deque([key for key in self._keys if key[-1] in self._waiting])
            self._late = [key for key in self._late if key[-1] in self._waiting]
            heapify(self._late)

    def _advance(self) -> None:
        waiting, keys, late = self._waiting, self._keys, self._late
        while keys and keys[0][-1] not in waiting:
            keys.popleft()
        while late and late[0][-1] not in waiting:
            heappop(late)
        if not keys and not late:
            self.head = None
            return
        first = late[0] if late and (not keys or late[0] < keys[0]) else keys[0]
        self.head = waiting[first[-1]]


class Band:
    """All requests of one priority that wait."""

    def __init__(self, rules: BandRules, fairness: Fairness, ordering: Ordering) -> None:
        self.rules = rules
        self.priority = rules.priority
        self.flows: dict[str, Flow] = {}
        """Fairness id → flow; none of them is empty."""
        self.waiting: OrderedDict[float, Ticket] = OrderedDict()
        """In order of arrival."""
        self.bytes = 0
        self.used_at = 0.0
        """When the latest request came."""
        self.fairness = fairness
        self._ordering = ordering
        self._heads: list[Key] | None = None
        """A heap of the flows' heads, and of former ones; kept once somebody has asked for the best."""

    def __len__(self) -> int:
        return len(self.waiting)

    def best(self) -> Flow | None:
        """The flow whose head comes first in the band's order."""
        heads = self._heads
        if heads is None:
            heads = self._heads = [flow.head.key for flow in self.flows.values() if flow.head is not None]
            heapify(heads)
        while heads:
            ticket = self.waiting.get(heads[0][-1])
            if ticket is not None and ticket.flow is not None and ticket.flow.head is ticket:
                return ticket.flow
            heappop(heads)
        return None

    def put(self, ticket: Ticket) -> None:
        ticket.key = self._ordering.key(ticket)
        self.waiting[ticket.number] = ticket
        self.bytes += ticket.size
        self.used_at = ticket.queued_at
        flow = self.flows.get(ticket.fairness_id)
        if flow is None:
            flow = self.flows[ticket.fairness_id] = Flow(ticket.fairness_id, self.priority, self.waiting)
        ticket.flow = flow
        flow.put(ticket)
        if self._heads is not None and flow.head is ticket:
            self._note_head(self._heads, ticket.key)
        if self.fairness.queued is not None:
            self.fairness.queued(flow, ticket)

    def dispatch(self, ticket: Ticket) -> None:
        """Take out one that goes."""
        flow = self._remove(ticket)
        if self.fairness.dispatched is not None:
            self.fairness.dispatched(flow, ticket)

    def drop(self, ticket: Ticket) -> None:
        """Take out one that leaves in another way."""
        flow = self._remove(ticket)
        if self.fairness.dropped is not None:
            self.fairness.dropped(flow, ticket)

    def _remove(self, ticket: Ticket) -> Flow:
        flow = ticket.flow
        assert flow is not None, "only what was put in is taken out"
        del self.waiting[ticket.number]
        self.bytes -= ticket.size
        ticket.flow = None
        was_head = flow.head is ticket
        flow.remove(ticket)
        if flow.head is None:
            del self.flows[flow.id]
        elif was_head and self._heads is not None:
            self._note_head(self._heads, flow.head.key)
        return flow

    def _note_head(self, heads: list[Key], key: Key) -> None:
        if len(heads) > 2 * len(self.flows) + SPARE:
            # Mostly former heads: begin anew when somebody asks.
            self._heads = None
        else:
            heappush(heads, key)


def oldest(bands: Iterable[Band]) -> Ticket | None:
    """Who has waited longest."""
    firsts = [next(iter(band.waiting.values())) for band in bands if band.waiting]
    return min(firsts, key=lambda ticket: ticket.number, default=None)
