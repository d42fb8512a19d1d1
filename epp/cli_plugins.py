"""`epp plugins`: what is installed, with kinds, settings and one line of doc each."""

from __future__ import annotations

import inspect
import textwrap
import types
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from epp.config.absent import IDLE, refusal
from epp.config.roster import FEEDS, settings_of_struct
from epp.plugins import Catalogue, PluginType
from epp.settings import PluginError, Setting

WIDTH = 100
INDENT = 4
OURS = "endpoint-picker"


def listing(catalogue: Catalogue) -> str:
    """Every type, one paragraph each; one that can't be loaded says why."""
    names = sorted({*catalogue.names, *FEEDS})
    return "\n".join("\n".join(_paragraph(catalogue, name, whole=False)) + "\n" for name in names)


def one(catalogue: Catalogue, name: str) -> str:
    """One type with its whole text; "" if there is none of that name."""
    if name not in catalogue and name not in FEEDS:
        return ""
    return "\n".join(_paragraph(catalogue, name, whole=True)) + "\n"


def unknown(catalogue: Catalogue, name: str) -> str:
    """What to say of a type that is not there."""
    if name in IDLE:
        return f"{name!r} is accepted in configurations without effect: {IDLE[name].why}"
    close = get_close_matches(name, [*catalogue.names, *FEEDS], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "`epp plugins` lists them all"
    return f"{name!r} {refusal(name) or f'is no plug-in type; {hint}'}"


def _paragraph(catalogue: Catalogue, name: str, *, whole: bool) -> Iterator[str]:
    if name not in catalogue:
        kind = FEEDS[name]
        yield f"{name}  [data layer]"
        yield from _text(_doc(kind, whole))
        yield from _settings(settings_of_struct(kind))
        return
    try:
        found = catalogue.find(name)
    except PluginError as error:
        yield f"{name}  [broken]"
        yield from _text(str(error))
        return
    places = ", ".join(place.replace("_", " ") for place in found.places)
    yield from _wrapped(f"{name}  [{places}]{_remarks(found)}", "", " " * len(f"{name}  "))
    yield from _text(_doc(found.target, whole))
    yield from _settings(found.settings)


def _remarks(found: PluginType) -> str:
    deprecated = getattr(found.target, "deprecated", "")
    remarks = [
        *(["experimental"] if found.alpha else []),
        *([f"deprecated: {deprecated}"] if deprecated else []),
        *([f"from {found.distribution}"] if found.distribution != OURS else []),
        *([f"provides {', '.join(found.provides.values)}"] if found.provides else []),
    ]
    return f"  {'; '.join(remarks)}" if remarks else ""


def _doc(target: Callable[..., Any], whole: bool) -> str:
    text = inspect.getdoc(target) or ""
    return text if whole else text.partition("\n")[0]


def _text(text: str) -> Iterator[str]:
    for part in text.split("\n\n"):
        yield from _wrapped(part, " " * INDENT, " " * INDENT)


def _wrapped(text: str, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=others, break_long_words=False, break_on_hyphens=False
    )


def _settings(settings: tuple[Setting, ...]) -> Iterator[str]:
    """One row a setting: name, type, default."""
    width = max((len(setting.camel) for setting in settings), default=0)
    for setting in settings:
        default = "required" if setting.required else f"= {_shown(setting.default)}"
        head = f"{' ' * INDENT}- {setting.camel:<{width}}  "
        rest = f"{type_name(setting.annotation)}  {default}"
        yield from _wrapped(rest, head, " " * len(head))


def _shown(default: object) -> str:
    """A default as one would write it."""
    if isinstance(default, msgspec.Struct):
        return "its own defaults"
    return "unset" if default is None else msgspec.json.encode(default, enc_hook=str).decode()


BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
NAMES = {bool: "true|false", int: "whole number", float: "number", str: "text"}


def type_name(annotation: Any) -> str:
    """A setting's type in words; any annotation an author may write."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return " ".join([type_name(inner[0]), *_bounds(inner[1:])])
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin in {Union, types.UnionType}:
        return " or ".join(type_name(one) for one in inner if one is not type(None))
    if origin in {list, tuple, set, frozenset}:
        return f"list of {type_name(inner[0])}"
    return "mapping" if origin is dict else _plain_name(annotation)


def _plain_name(annotation: Any) -> str:
    if inspect.isclass(annotation) and issubclass(annotation, msgspec.Struct):
        return f"{{{', '.join(field.encode_name for field in msgspec.structs.fields(annotation))}}}"
    return NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bounds(marks: Sequence[object]) -> list[str]:
    metas = [mark for mark in marks if isinstance(mark, msgspec.Meta)]
    found = [(sign, getattr(meta, name)) for meta in metas for name, sign in BOUNDS.items()]
    return [f"{sign} {bound:g}" for sign, bound in found if bound is not None]
