"""Which plug-ins a file offers: from the return annotations of what it defines, or from its variable PLUGINS."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from epp.plugins import HOOKS, METHODS, PLACES
from epp.settings import PluginError
from epp.signals import Provides
from epp.types import Column, Mask, Rows, Scores

VARIABLE = "PLUGINS"
"""A module's own word on what it offers: entry point group → plug-in type → function or class."""
RETURNED = ((Scores, "scorer"), (Mask, "filter"), (Rows, "picker"), (Column, "detector"))
"""What is returned → what returns it. Told apart by identity: scores and columns are arrays of the same kind."""
WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_+")
"""Where one word of a name ends and the next begins."""
EXAMPLE = '{"epp.admitters": {"night-rest": night_rest}}'


class Offer(NamedTuple):
    """One plug-in in one of its places."""

    place: str
    type: str
    target: Any  # a function or a class, if the author got it right; whoever loads it checks


def offers(module: ModuleType, path: str) -> list[Offer]:
    """What a module offers, in a fixed order; PluginError, beginning with `path`, if that is nothing or unclear."""
    declared = getattr(module, VARIABLE, None)
    found = list(_derived(module, path) if declared is None else _declared(declared, path))
    if not found:
        raise PluginError(
            f"{path}: offers no plug-in; annotate what a public function returns (epp.Scores, epp.Mask, epp.Rows, "
            f"epp.Column), decorate it with @epp.signal, or set {VARIABLE}; "
            "a file that others only import begins with _"
        )
    return found


def type_name(name: str) -> str:
    """`short_queue` and `ShortQueue` as plug-in types are written: short-queue."""
    return WORDS.sub("-", name).strip("-").lower()


def _declared(declared: object, path: str) -> Iterator[Offer]:
    places = {group: place for place, group in PLACES.items()}
    if not isinstance(declared, Mapping):
        raise PluginError(f"{path}: {VARIABLE} is {type(declared).__name__}; write {VARIABLE} = {EXAMPLE}")
    for group, members in declared.items():
        if group not in places:
            raise PluginError(f"{path}: {VARIABLE} has no group {group!r}; have: {', '.join(places)}")
        if not isinstance(members, Mapping) or not all(name and isinstance(name, str) for name in members):
            raise PluginError(f"{path}: {VARIABLE}[{group!r}] must map plug-in types to functions, as in {EXAMPLE}")
        yield from (Offer(places[group], name, target) for name, target in members.items())


def _derived(module: ModuleType, path: str) -> Iterator[Offer]:
    seen: dict[str, str] = {}
    for target in _public(module):
        name = type_name(target.__name__)
        places = _places(target, path)
        if places and name in seen:
            raise PluginError(f"{path}: {seen[name]} and {target.__name__} are both called {name!r}; rename one")
        if places:
            seen[name] = target.__name__
        yield from (Offer(place, name, target) for place in places)


def _public(module: ModuleType) -> list[Any]:
    """Functions and classes defined here, each once, in the order they are defined in."""
    found = {id(one): one for one in vars(module).values() if isinstance(one, FunctionType | type)}
    mine = (one for one in found.values() if one.__module__ == module.__name__)
    return [one for one in mine if not one.__name__.startswith(("_", "<"))]


def _places(target: Any, path: str) -> list[str]:
    if inspect.isclass(target):
        return _places_of_class(target, path)
    return ["signal"] if _signals(target) else _returned(target, path)


def _places_of_class(target: type, path: str) -> list[str]:
    """By `__call__` and the methods of METHODS; a class that has neither may still have hooks."""
    if inspect.isabstract(target) or getattr(target, "_is_protocol", False):
        return []
    found = ["signal"] if _signals(target) else _returned(getattr(target, "__call__", None), path)  # noqa: B004
    for place, name in METHODS.items():
        if place != "signal" and place not in found and place in _returned(getattr(target, name, None), path):
            found.append(place)
    return found or (["hook"] if any(callable(getattr(target, hook, None)) for hook in HOOKS) else [])


def _signals(target: Any) -> bool:
    return isinstance(getattr(target, "provides", None), Provides)


def _returned(call: Callable[..., Any] | None, path: str) -> list[str]:
    """The place of what has one of RETURNED as its return annotation."""
    call = inspect.unwrap(call) if call is not None else None
    if not isinstance(call, FunctionType):
        return []
    told = _annotation(call, path)
    return [place for kind, place in RETURNED if told is kind]


def _annotation(function: FunctionType, path: str) -> object:
    """The return annotation, evaluated where it is text: a type checker's name for it is not enough here."""
    try:
        told = function.__annotations__.get("return")
        return eval(told, function.__globals__) if isinstance(told, str) else told
    except Exception as error:  # whatever evaluating an expression of a stranger's raises
        raise PluginError(
            f"{path}:{function.__code__.co_firstlineno}: what {function.__name__} returns can't be read: {error}; "
            "import the name outside of `if TYPE_CHECKING`, or begin the function's name with _"
        ) from error
