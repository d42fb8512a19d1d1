"""A small set of made-up plug-ins, and configurations that use them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from textwrap import dedent
from typing import Any

import numpy as np

from epp import Column, Endpoints, Mask, Refused, Request, Rows, Scores, column, signal
from epp.bodies.parsed import Parsed, ResponseReader
from epp.bodies.passthrough import PassthroughParser
from epp.config import Built, load
from epp.headers import Headers
from epp.plugins import PLACES, Catalogue

HEAD = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"


def even(endpoints: Endpoints, *, share: float = 0.5) -> Scores:
    """Give everybody the same."""
    return np.full(len(endpoints), share)


def by_heat(endpoints: Endpoints, heat: Column, *, heat_producer_name: str = "") -> Scores:
    """Prefer the cold."""
    return 1.0 - heat


def perhaps_by_heat(
    endpoints: Endpoints, mood: str = "calm", heat: Column | None = None, *, heat_producer_name: str = ""
) -> Scores:
    """Prefer the cold if anybody knows, unless the mood is bad."""
    if heat is None or mood != "calm":
        return np.zeros(len(endpoints))
    return 1.0 - heat


def by_rumour(endpoints: Endpoints, rumour: str) -> Scores:
    """Reads what nobody provides."""
    return np.zeros(len(endpoints))


@signal({"heat": column(0.5), "source": ""}, chosen_by="heat_producer_name", by_default=True)
class Thermometer:
    """Tells the heat."""

    def __init__(self, *, degrees: float = 0.25) -> None:
        self._degrees = degrees

    def __call__(self, endpoints: Endpoints, weather: str) -> tuple[Column, str]:
        return np.full(len(endpoints), self._degrees), weather

    def picked(self, request: Request, decision: Any) -> None:  # the tests look only whether it is called
        """Would learn from the pick."""


@signal({"weather": "fine"}, by_default=True)
def barometer(request: Request) -> str:
    """Tells the weather."""
    return "rain"


@signal({"weather": "fog"}, by_default=True)
class Antique:
    """What told the weather before barometer."""

    deprecated = "use barometer"

    def __call__(self, request: Request) -> str:
        return "snow"


@signal({"mood": "calm"})
def moody(request: Request) -> str:
    """Tells the mood; never added by itself."""
    return "bad"


@signal({"egg": 0.0})
def hen(request: Request, chicken: float) -> float:
    return chicken


@signal({"chicken": 0.0})
def chick(request: Request, egg: float) -> float:
    return egg


def allow_all(endpoints: Endpoints) -> Mask:
    """Keep everybody."""
    return np.ones(len(endpoints), dtype=np.bool_)


def first_row(scores: Scores) -> Rows:
    """Pick the first."""
    return np.arange(min(1, len(scores)))


def every_profile(profiles: tuple[str, ...], runs: Mapping[str, object]) -> list[str]:
    """Run them all."""
    return [] if runs else list(profiles)


class Strict:
    """A profile handler with a word on which run counts."""

    def __call__(self, profiles: tuple[str, ...], runs: Mapping[str, object]) -> list[str]:
        return [] if runs else list(profiles)

    def primary(self, request: Request, runs: Mapping[str, object]) -> str:
        return list(runs)[-1]


class Both:
    """A filter and a scorer in one."""

    deprecated = "use even"

    def __init__(self, *, old: bool = False) -> None:
        self.warnings = ("old is ignored",) if old else ()

    def filter(self, endpoints: Endpoints) -> Mask:
        return np.ones(len(endpoints), dtype=np.bool_)

    def score(self, endpoints: Endpoints) -> Scores:
        return np.ones(len(endpoints))


def wild(endpoints: Endpoints) -> Scores:
    """Breaks the contract."""
    return np.full(len(endpoints), 7.0)


def bold(endpoints: Endpoints) -> Scores:
    """Experimental."""
    return np.ones(len(endpoints))


bold.alpha = True  # type: ignore[attr-defined]  # a function takes attributes; its type does not


def doorman(request: Request) -> Refused | None:
    """Lets all in."""
    return None


class Words:
    """Reads the paths of one engine."""

    paths = ("words",)
    protocols: tuple[str, ...] = ()

    def parse(self, body: bytes, path: str, headers: Headers) -> Parsed:
        return Parsed(api="raw")

    def reader(self, content_type: str) -> ResponseReader:
        return PassthroughParser().reader(content_type)


class Listener:
    """Only listens."""

    def finished(self, request: Request, decision: Any, outcome: Any) -> None:  # never called here
        """Would take note."""


PLUGINS = {
    "even": ("scorer", "even"),
    "by-heat": ("scorer", "by_heat"),
    "perhaps-by-heat": ("scorer", "perhaps_by_heat"),
    "by-rumour": ("scorer", "by_rumour"),
    "wild": ("scorer", "wild"),
    "bold": ("scorer", "bold"),
    "both": ("filter scorer", "Both"),
    "allow-all": ("filter", "allow_all"),
    "door-screener": ("screener", "allow_all"),
    "doorman": ("admitter", "doorman"),
    "thermometer": ("signal", "Thermometer"),
    "antique": ("signal", "Antique"),
    "barometer": ("signal", "barometer"),
    "moody": ("signal", "moody"),
    "hen": ("signal", "hen"),
    "chick": ("signal", "chick"),
    "first-row": ("picker", "first_row"),
    "max-score-picker": ("picker", "first_row"),
    "single-profile-handler": ("profile_handler", "every_profile"),
    "strict": ("profile_handler", "Strict"),
    "words": ("parser", "Words"),
    "openai-parser": ("parser", "Words"),
    "listener": ("hook", "Listener"),
    "broken": ("scorer", "no_such_name"),
}
"""Type → (places, name in this module)."""
BUILT_IN = {
    "anthropic-parser": "epp.bodies.anthropic:AnthropicParser",
    "vllmhttp-parser": "epp.bodies.vllmhttp:VllmHttpParser",
    "passthrough-parser": "epp.bodies.passthrough:PassthroughParser",
}
OF_THE_QUEUE = {
    "ledger-detector": ("detector filter", "saturation:LedgerDetector"),
    "utilization-detector": ("detector filter", "saturation:UtilizationDetector"),
    "concurrency-detector": ("detector filter", "saturation:ConcurrencyDetector"),
    "global-strict-fairness-policy": ("fairness", "flow_fairness:GlobalStrictFairnessPolicy"),
    "round-robin-fairness-policy": ("fairness", "flow_fairness:RoundRobinFairnessPolicy"),
    "fcfs-ordering-policy": ("ordering", "flow_ordering:fcfs_ordering_policy"),
    "edf-ordering-policy": ("ordering", "flow_ordering:edf_ordering_policy"),
    "static-usage-limit-policy": ("usage_limit", "flow_limits:StaticUsageLimitPolicy"),
    "priority-holdback-policy": ("usage_limit", "flow_limits:PriorityHoldbackPolicy"),
}


def catalogue() -> Catalogue:
    """Everything above, found as installed plug-ins are."""
    points = [
        (place, EntryPoint(name, f"{__name__}:{target}", PLACES[place]))
        for name, (places, target) in PLUGINS.items()
        for place in places.split()
    ]
    parsers = [("parser", EntryPoint(name, value, PLACES["parser"])) for name, value in BUILT_IN.items()]
    queue = [
        (place, EntryPoint(name, f"scorers.{value}", PLACES[place]))
        for name, (places, value) in OF_THE_QUEUE.items()
        for place in places.split()
    ]
    return Catalogue([*points, *parsers, *queue])


def made(text: str, **settings: Any) -> Built:
    """The configuration `text`, without its two first lines, with these plug-ins."""
    return load(HEAD + dedent(text), catalogue=catalogue(), **settings)
