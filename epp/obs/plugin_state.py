"""/debug/plugins/state: what each configured plug-in tells of itself, as far as it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from epp.plugins import Plugin, shown
from epp.pool.ledger import Load

MOST_ENDPOINTS = 100
"""Told of the requests in flight, the busiest first."""
SILENT = "this plug-in tells no state"
State = dict[str, Any]  # what JSON can say
Elsewhere = Mapping[str, Callable[[], object]]
"""Plug-in type → what the picker itself keeps in its stead."""
NOTHING: Elsewhere = {}


def plugins_state(plugins: Mapping[str, Plugin], now_ns: int, elsewhere: Elsewhere = NOTHING) -> State:
    """As the page shows it; `now_ns` since 1970. A plug-in that fails to tell has a message instead."""
    return {
        "timestamp": rfc3339_nano(now_ns),
        "plugins": {
            name: {"name": name, "type": plugin.type.type, **_told(plugin, elsewhere)}
            for name, plugin in plugins.items()
        },
    }


def rfc3339_nano(ns: int) -> str:
    """UTC as Go writes it: without zeros at the end of the fraction, without a fraction that is 0."""
    seconds, rest = divmod(ns, 1_000_000_000)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def inflight_state(loads: Mapping[str, Load]) -> State:
    """What is in flight where, as inflight-load-producer tells it in the llm-d router."""
    busiest = sorted(loads.items(), key=lambda item: (-item[1].requests, item[0]))
    return {
        "endpoints": [
            {"endpoint": key, "requests": load.requests, "tokens": load.tokens}
            for key, load in busiest[:MOST_ENDPOINTS]
        ],
        "totalEndpoints": len(loads),
        "maxEndpoints": MOST_ENDPOINTS,
        "truncated": len(loads) > MOST_ENDPOINTS,
    }


def _told(plugin: Plugin, elsewhere: Elsewhere) -> State:
    tell = plugin.hook("state") or elsewhere.get(plugin.type.type)
    if tell is None:
        return {"message": SILENT}
    try:
        return {"state": msgspec.json.decode(msgspec.json.encode(tell(), enc_hook=_plain))}
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a stranger's code; the others are told all the same
        return {"message": f"its state can't be told: {shown(error)}"}


def _plain(value: Any) -> Any:  # whatever a plug-in holds
    """Numpy's arrays and numbers as lists and numbers; all else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
