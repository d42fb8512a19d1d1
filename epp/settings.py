"""Turns the `parameters` of a plug-in into its settings: keyword-only arguments, by annotation and default."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec


class PluginError(Exception):
    """A plug-in that can't be used as it is; the text names it, the rule and the remedy."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a plug-in: a keyword-only parameter."""

    name: str
    annotation: Any  # a type expression, whatever the author wrote
    default: Any  # of that type; inspect.Parameter.empty = required

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def camel(self) -> str:
        first, *rest = self.name.split("_")
        return first + "".join(word.capitalize() for word in rest)


def settings_of(target: Callable[..., Any]) -> tuple[Setting, ...]:
    """The keyword-only parameters of a function, or of a class's `__init__`."""
    function = target.__init__ if inspect.isclass(target) else target
    hints = get_type_hints(function, include_extras=True)
    return tuple(
        Setting(p.name, hints.get(p.name, Any), p.default)
        for p in inspect.signature(function).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    )


def plain(key: str) -> str:
    """The form in which spellings of one name are equal: maxTokens, max_tokens and MAXTOKENS."""
    return key.replace("_", "").lower()


def decode(where: str, settings: tuple[Setting, ...], parameters: Mapping[str, object]) -> dict[str, Any]:
    """Keyword arguments from `parameters`; raises PluginError that starts with `where`."""
    by_plain = {plain(setting.name): setting for setting in settings}
    given: dict[str, Any] = {}  # each value has its setting's type
    for key, value in parameters.items():
        setting = by_plain.get(plain(key))
        if setting is None:
            raise PluginError(f"{where}: no parameter named {key!r}; {_choices(key, settings)}")
        if setting.name in given:
            raise PluginError(f"{where}: parameter {setting.camel!r} is given twice (as {key!r} too); keep one")
        given[setting.name] = _convert(f"{where}.{setting.camel}", value, setting)
    missing = [setting.camel for setting in settings if setting.required and setting.name not in given]
    if missing:
        raise PluginError(f"{where}: required parameter missing: {', '.join(missing)}")
    return given


def _choices(key: str, settings: tuple[Setting, ...]) -> str:
    names = sorted(setting.camel for setting in settings)
    close = get_close_matches(key, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}have: {', '.join(names)}"


def _convert(where: str, value: object, setting: Setting) -> object:
    if value is None and setting.default is None:
        return None
    try:
        return msgspec.convert(_respell(where, value, setting.annotation), setting.annotation)
    except msgspec.ValidationError as error:
        choices = get_args(setting.annotation) if get_origin(setting.annotation) is Literal else ()
        rule = f"expected one of {', '.join(map(str, choices))}" if choices else str(error)
        raise PluginError(f"{where}: {rule} (got {value!r})") from None


def _respell(where: str, value: object, annotation: Any) -> object:
    """Keys of nested settings, in whatever case, as the record behind `annotation` spells them."""
    struct = _struct_in(annotation)
    if isinstance(value, list):
        return [_respell(where, item, annotation) for item in value]
    if struct is None or not isinstance(value, dict):
        return value
    fields = {plain(field.encode_name): field for field in msgspec.structs.fields(struct)}
    renamed: dict[str, object] = {}
    for key, item in value.items():
        field = fields.get(plain(str(key)))
        name = field.encode_name if field else str(key)
        if name in renamed:
            raise PluginError(f"{where}: {name!r} is given twice; keep one")
        renamed[name] = _respell(f"{where}.{name}", item, field.type) if field else item
    return renamed


def _struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    """The one record type inside an annotation such as `list[Condition]` or `Estimate | None`."""
    if inspect.isclass(annotation) and issubclass(annotation, msgspec.Struct):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _struct_in(inner)
        if found is not None:
            return found
    return None
