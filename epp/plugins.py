"""The plug-in contracts: which kinds there are, how one is found by its type, built and bound by name.

A plug-in is a function, or a class whose instances are called, registered as an entry point or found in a file
(`epp/plugin_files.py`). Its positional parameters are what it reads, by name; its keyword-only parameters are its
settings. A class in several groups has a method per group (METHODS), one with a single role just `__call__`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.metadata import Distribution, entry_points
from traceback import walk_tb
from typing import Any, Protocol

from epp.settings import PluginError, Setting, decode, settings_of
from epp.signals import Provides
from epp.types import Refused

PLACES = {
    "filter": "epp.filters",
    "scorer": "epp.scorers",
    "picker": "epp.pickers",
    "signal": "epp.signals",
    "profile_handler": "epp.profile_handlers",
    "parser": "epp.parsers",
    "detector": "epp.saturation_detectors",
    "fairness": "epp.fairness_policies",
    "ordering": "epp.ordering_policies",
    "usage_limit": "epp.usage_limit_policies",
    "screener": "epp.screeners",
    "admitter": "epp.admitters",
    "hook": "epp.hooks",
}
"""Kind of plug-in → entry point group."""
METHODS = {
    "filter": "filter",
    "scorer": "score",
    "picker": "pick",
    "signal": "measure",
    "detector": "saturation",
    "fairness": "turn",
    "ordering": "key",
    "usage_limit": "ceilings",
}
"""Kind of plug-in → method of a class that does its work; a class without it is called itself."""
HOOKS = ("arrived", "picked", "response_headers", "finished")
"""Optional methods of a class, called along a request's life. Three more are called from outside of requests:
`adopt(before)` when an instance takes the place of another one of its name, `state()` when somebody looks, `ready()`
when a probe asks."""
PASSED_ON = (Refused, KeyboardInterrupt, GeneratorExit)
"""What is let out of a plug-in. All else costs only what it would have told: a CancelledError it made up would leave
the stream without an answer, a SystemExit would end the picker."""
GIVEN = frozenset({"request", "endpoints", "now", "rng"})
"""What every plug-in may read besides signals."""
GIVEN_ONLY = {
    "picker": frozenset({"scores"}),
    "profile_handler": frozenset({"profiles", "runs"}),
}
"""What one kind may read besides that."""
OF_THE_QUEUE = frozenset({"fairness", "ordering", "usage_limit"})
"""Kinds that decide in which order requests leave the queue; each is called with arguments of its own."""
CALLED = tuple(place for place in PLACES if place not in {"parser", "hook"} | OF_THE_QUEUE)
"""Kinds whose instances are called with what they read."""


@dataclass(frozen=True, slots=True)
class PluginType:
    """What an entry point offers, not yet configured."""

    type: str
    places: tuple[str, ...]
    target: Callable[..., Any]
    settings: tuple[Setting, ...]
    distribution: str

    @property
    def doc(self) -> str:
        """First line of its docstring."""
        return (inspect.getdoc(self.target) or "").split("\n", 1)[0]

    @property
    def alpha(self) -> bool:
        """True if it needs --allow-experimental-plugins, as upstream demands of its alpha types."""
        return bool(getattr(self.target, "alpha", False))

    def complete(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings with the defaults of those not given."""
        return {setting.name: settings.get(setting.name, setting.default) for setting in self.settings}

    @property
    def provides(self) -> Provides | None:
        found: Provides | None = getattr(self.target, "provides", None)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Plugin:
    """A configured plug-in: one entry of `plugins` in the configuration."""

    name: str
    type: PluginType
    instance: Any  # a function with its settings bound, or an object of the author's class
    settings: Mapping[str, Any]

    @property
    def places(self) -> tuple[str, ...]:
        return self.type.places

    def call(self, place: str) -> Callable[..., Any]:
        """What is called when the plug-in does its work as `place`."""
        found: Callable[..., Any] = getattr(self.instance, METHODS.get(place, ""), self.instance)
        # The method of an object is called in less time than the object.
        return (
            found.__call__
            if found is self.instance and inspect.isclass(self.type.target) and callable(found)
            else found
        )

    def reads(self, place: str) -> dict[str, Any]:
        """Names it reads there → default (inspect.Parameter.empty if it can't do without)."""
        return reads_of(self.call(place))

    def hook(self, name: str) -> Callable[..., Any] | None:
        """Its optional method `name`: one of HOOKS, adopt or state."""
        return getattr(self.instance, name, None) if inspect.isclass(self.type.target) else None


LONGEST_SHOWN = 1_000


def raised(error: BaseException) -> str:
    """A plug-in's exception as text, with the file and line that raised it."""
    return shown(error) + "".join([f" at {at.f_code.co_filename}:{n}" for at, n in walk_tb(error.__traceback__)][-1:])


def shown(error: BaseException) -> str:
    """A plug-in's exception as text, even if that fails too: it may quote a whole prompt, so only its beginning."""
    try:
        text = repr(error)
        return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - a stranger's __repr__
        return f"{type(error).__name__}, which has no text"


def reads_of(call: Callable[..., Any]) -> dict[str, Any]:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {p.name: p.default for p in inspect.signature(call).parameters.values() if p.kind in positional}


class Point(Protocol):
    """Names a plug-in and can load it: an entry point of a package, or what stands for one of a file."""

    @property
    def name(self) -> str:
        """The plug-in type."""

    @property
    def value(self) -> str:
        """Where the plug-in is defined, for errors."""

    @property
    def module(self) -> str:
        """What offers it, where there is no distribution."""

    @property
    def dist(self) -> Distribution | None: ...

    def load(self) -> Any:
        """The function or class; raises whatever its module raises."""


class Catalogue:
    """The plug-ins there are, each loaded when first asked for."""

    def __init__(self, points: Iterable[tuple[str, Point]]) -> None:
        self._points: dict[str, list[tuple[str, Point]]] = {}
        for place, point in points:
            self._points.setdefault(point.name, []).append((place, point))
        self._loaded: dict[str, PluginType] = {}

    @classmethod
    def installed(cls) -> Catalogue:
        return cls((place, point) for place, group in PLACES.items() for point in entry_points(group=group))

    def joined(self, points: Iterable[tuple[str, Point]]) -> Catalogue:
        """These and others, which are loaded at once. PluginError if one of them can't be, or has a name taken here."""
        points = list(points)
        for _, point in points:
            if point.name in self._points:
                there = _distribution(self._points[point.name][0][1])
                raise PluginError(f"{point.value}: {there} has a plug-in type {point.name!r} already; rename this one")
        mine = [(place, point) for found in self._points.values() for place, point in found]
        both = Catalogue([*mine, *points])
        both._loaded |= self._loaded
        for _, point in points:
            try:
                both.find(point.name)
            except PluginError as error:
                raise PluginError(f"{point.module}: {error}") from error
        return both

    @property
    def names(self) -> list[str]:
        return sorted(self._points)

    def __contains__(self, name: object) -> bool:
        return name in self._points

    def find(self, name: str) -> PluginType:
        """The plug-in type `name`; PluginError if there is none, it can't be imported or two packages claim it."""
        if name not in self._loaded:
            if name not in self._points:
                close = get_close_matches(name, self.names, n=3)
                hint = f"did you mean {', '.join(close)}? " if close else ""
                raise PluginError(f"no plug-in type {name!r}; {hint}have: {', '.join(self.names)}")
            self._loaded[name] = _load(name, self._points[name])
        return self._loaded[name]

    def in_place(self, place: str) -> list[PluginType]:
        """Every type registered as `place`."""
        return [self.find(n) for n, points in sorted(self._points.items()) if any(p == place for p, _ in points)]

    def build(
        self, name: str, type_name: str, parameters: Mapping[str, object], where: str, before: Plugin | None = None
    ) -> Plugin:
        """A configured plug-in; `where` is its path in the configuration, for errors.

        `before` had its name until now: if it is made of the same code with the same settings, its instance goes on.
        """
        found = self.find(type_name)
        given = decode(f"{where} ({type_name})", found.settings, parameters) if found.settings else {}
        plugin = Plugin(name, found, None, given)
        instance = before.instance if before and same(before, plugin) else _made(found, given, where)
        return replace(plugin, instance=instance)


def same(one: Plugin, other: Plugin) -> bool:
    """Whether two plug-ins are made of the same code with the same settings, so that one can stand for the other."""
    return (
        (one.name, one.type.type) == (other.name, other.type.type)
        and one.type.target is other.type.target
        and one.type.complete(one.settings) == other.type.complete(other.settings)
    )


def _made(found: PluginType, given: Mapping[str, Any], where: str) -> Any:
    if not inspect.isclass(found.target):
        return functools.partial(found.target, **given) if given else found.target
    try:
        return found.target(**given)
    except KeyboardInterrupt:
        raise
    except (ValueError, TypeError) as error:
        raise PluginError(f"{where} ({found.type}): {error}") from error
    except BaseException as error:  # whatever a stranger's __init__ raises, SystemExit too
        raise PluginError(f"{where} ({found.type}): its __init__ raised {shown(error)}") from error


def _load(name: str, points: list[tuple[str, Point]]) -> PluginType:
    origins = {_distribution(point) for _, point in points}
    if len(origins) > 1:
        raise PluginError(f"plug-in type {name!r} is offered by {' and '.join(sorted(origins))}; uninstall one")
    try:
        targets = [point.load() for _, point in points]
    except Exception as error:  # whatever a stranger's module raises at import
        raise PluginError(f"plug-in {name!r} ({points[0][1].value}) can't be imported: {error!r}") from error
    if any(target is not targets[0] for target in targets):
        raise PluginError(f"plug-in {name!r}: its entry points in several groups must name one object")
    try:
        settings = settings_of(targets[0])
    except (NameError, TypeError, ValueError) as error:
        raise PluginError(f"plug-in {name!r}: its signature can't be read: {error}") from error
    found = PluginType(name, tuple(place for place, _ in points), targets[0], settings, origins.pop())
    _check_shape(found)
    return found


def _distribution(point: Point) -> str:
    return point.dist.name if point.dist is not None else point.module


def _check_shape(found: PluginType) -> None:
    """The rules that need no call: what is positional, what is keyword-only, what a signal declares."""
    target = found.target
    if not callable(target):
        raise PluginError(f"plug-in {found.type!r}: {target!r} is neither a function nor a class")
    if inspect.isclass(target):
        needed = [p for p in list(reads_of(target.__init__))[1:] if p not in {"args", "kwargs"}]
        if needed:
            raise PluginError(
                f"plug-in {found.type!r}: settings must be keyword-only; put `*` before {needed[0]!r} in __init__"
            )
    if "signal" in found.places and found.provides is None:
        raise PluginError(f"plug-in {found.type!r} is a signal: declare what it provides with @epp.signal(…)")
