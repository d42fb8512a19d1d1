"""What is in flight where: charged at the pick, refunded exactly once when the request ends, however it ends."""

from __future__ import annotations

from collections.abc import Callable


class Load:
    """What one endpoint has in flight."""

    __slots__ = ("requests", "tokens")

    def __init__(self, requests: int = 0, tokens: float = 0.0) -> None:
        self.requests = requests
        self.tokens = tokens


class Charge:
    """One request's share of one endpoint's load; gives it back in two steps, each at most once."""

    __slots__ = ("_ledger", "_open", "_until_end", "_until_first", "key")

    def __init__(self, ledger: Ledger, key: str, until_first: float, until_end: float) -> None:
        self.key = key
        self._ledger = ledger
        self._until_first = until_first
        self._until_end = until_end
        self._open = True

    def first_piece(self) -> float:
        """The first piece of the answer is there: the prompt is computed. Returns the tokens that were given back."""
        tokens, self._until_first = (self._until_first, 0.0) if self._open else (0.0, self._until_first)
        if tokens:
            self._ledger.add(self.key, 0, -tokens)
        return tokens

    def close(self) -> tuple[int, float]:
        """The request has ended. Returns requests and tokens given back; nothing the second time."""
        if not self._open:
            return 0, 0.0
        self._open = False
        tokens = self._until_first + self._until_end
        self._ledger.add(self.key, -1, -tokens)
        return 1, tokens


class Ledger:
    """Requests and prompt tokens in flight per endpoint key. Law: charged = refunded + in flight.

    Counts survive an endpoint's removal until its requests end, so one that comes back starts with the truth.
    `changed(key, requests, tokens)` is called after each change, with what is in flight there.
    """

    def __init__(self, changed: Callable[[str, int, float], None]) -> None:
        self._loads: dict[str, Load] = {}
        self._changed = changed

    def charge(self, key: str, *, until_first: float = 0.0, until_end: float = 0.0) -> Charge:
        """Count one request at `key`; tokens until the first piece of its answer, and tokens until its end."""
        self.add(key, 1, until_first + until_end)
        return Charge(self, key, until_first, until_end)

    def load(self, key: str) -> Load:
        """What is in flight at `key`; a copy."""
        found = self._loads.get(key)
        return Load() if found is None else Load(found.requests, found.tokens)

    @property
    def requests(self) -> int:
        """In flight at all endpoints together."""
        return sum(load.requests for load in self._loads.values())

    def add(self, key: str, requests: int, tokens: float) -> None:
        """So much more, or below 0 less, is in flight at `key`. For charges, which know what is to be given back."""
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = Load()
        left = load.requests = load.requests + requests
        load.tokens += tokens
        if left:
            self._changed(key, left, load.tokens)
        else:
            # What rounding may have left of the tokens ends here.
            del self._loads[key]
            self._changed(key, 0, 0.0)
