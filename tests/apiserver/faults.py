"""What goes wrong, on demand: knobs that work at once."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.apiserver.store import Store

KNOBS: dict[str, Any] = {
    "status": {},
    "refuse": False,
    "silent": False,
    "drop_watches_after_s": None,
    "delay_s": 0.0,
    "expire_continue": False,
    "garbage": None,
    "gone_as_status": False,
    "termination_s": 0.1,
}


class Faults:
    """Set an attribute and the server behaves so from then on."""

    status: dict[str, int]
    """Path prefix → the status every request under it is answered with."""
    refuse: bool
    """Close each connection without an answer."""
    silent: bool
    """Accept requests and send nothing; open watches send neither changes nor bookmarks."""
    drop_watches_after_s: float | None
    """Watches end after so many seconds, those under way too."""
    delay_s: float
    """Seconds before any request is answered."""
    expire_continue: bool
    """Continue tokens are answered with 410."""
    garbage: str | None
    """Before the next watch event, once: "line" sends one that is not JSON, "types" an object with wrong types."""
    gone_as_status: bool
    """A watch from a forgotten version gets HTTP status 410, and not an ERROR event in a stream with status 200."""
    termination_s: float
    """How long a pod with a grace period takes to vanish."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = asyncio.Event()
        for name, value in KNOBS.items():
            object.__setattr__(self, name, {} if name == "status" else value)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_") and name not in KNOBS:
            raise AttributeError(f"faults: no knob {name!r}; have: {', '.join(KNOBS)}")
        object.__setattr__(self, name, value)
        if name in KNOBS:
            self._changed.set()
            object.__setattr__(self, "_changed", asyncio.Event())
            for watcher in self._store.watchers:
                watcher.woken.set()

    def compact(self) -> None:
        """Forget history: the next watch from an older version is 410. Open watches go on."""
        self._store.compact()

    def cut_watches(self) -> None:
        """End all watch streams, as a server does at their timeout."""
        for watcher in self._store.watchers:
            watcher.close()

    def changed(self) -> asyncio.Event:
        """Set when any knob is turned after this call."""
        return self._changed

    def set(self, knobs: dict[str, Any]) -> None:
        """From JSON: knobs by name, and the methods with true."""
        for name, value in knobs.items():
            if name in {"compact", "cut_watches"}:
                getattr(self, name)()
            else:
                setattr(self, name, value)

    def shown(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in KNOBS}

    def status_for(self, path: str) -> int | None:
        return next((code for prefix, code in self.status.items() if path.startswith(prefix)), None)
