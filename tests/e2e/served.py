"""A picker in Kubernetes mode with an Envoy before it, as tests look at them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .chat import ask, completion
from .client import Reply
from .envoy import Envoy
from .load import load
from .processes import Picker, settles


@dataclass(frozen=True)
class Served:
    """Both, running."""

    picker: Picker
    proxy: Envoy

    def ask(self, *headers: str, **body: Any) -> Reply:
        return ask(self.proxy.port, completion(f"{time.monotonic_ns()}", *headers, **body))

    def endpoints(self) -> dict[str, str]:
        """Who may be picked at this moment, address by name: a request tells, none if that is refused."""
        if self.ask().status != 200:
            return {}
        candidates = self.picker.decisions()[0]["runs"][0]["candidates"]
        return {row["endpoint"].rpartition("/")[2]: row["address"] for row in candidates}

    def settle(self, *names: str) -> None:
        """These may be picked, and no others, soon."""
        assert settles(sorted(names), lambda: sorted(self.endpoints())) == sorted(names)

    def says(self, pattern: str) -> str:
        """The line of its log, once it is there."""
        return str(self.picker.child.line(rf"^.*{pattern}.*$")[0][0])

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Requests go on meanwhile, and every one of them is answered with 200."""
        with load(self.proxy.port, clients=2) as requests:
            assert settles(True, lambda: len(requests.sent) > 4)
            yield
            seen = len(requests.sent)
            assert settles(True, lambda: len(requests.sent) > seen + 4)
        assert set(requests.statuses) == {200}


def known(picker: Picker) -> dict[str, str]:
    """The endpoints it knows, address by name, whether it is asked for picks or not."""
    rows = json.loads(picker.get("/debug/endpoints"))
    return {row["name"].rpartition("/")[2]: row["address"] for row in rows}
