"""Plain values → Config. Errors name the path and the choices."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import msgspec.inspect as types

from epp.config.errors import ConfigError, choices
from epp.config.schema import Amount, Config, Seconds
from epp.units import duration, quantity

AT = " - at `$"
WORDS = {
    "array": "a list",
    "object": "a mapping",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
}
"""The decoder's names of types → those of whoever writes YAML."""


def decode(value: object) -> Config:
    """The typed configuration; a key without a value (null) counts as absent."""
    if not isinstance(value, dict):
        raise ConfigError("", f"an EndpointPickerConfig is a mapping, not {type(value).__name__}")
    known = _known(value, types.type_info(Config), "")
    try:
        return msgspec.convert(known, Config, dec_hook=_scalar)
    except msgspec.ValidationError as error:
        problem, _, path = str(error).partition(AT)
        raise ConfigError(path.strip("`."), worded(problem)) from None


def worded(problem: str) -> str:
    """The decoder's problem in the words of whoever writes YAML."""
    problem = problem.replace("Object missing required field", "Required key missing:")
    plain = re.sub(r"`(\w+)(?: \| null)?`", lambda match: WORDS.get(match[1], match[1]), problem)
    return plain[:1].lower() + plain[1:]


def _known(value: Any, kind: types.Type, path: str) -> Any:
    """`value` without nulls; ConfigError on keys that the records of `kind` do not have."""
    match kind, value:
        case types.UnionType(types=options), _:
            return _known(value, options[0], path)
        case types.VarTupleType(item_type=item), list():
            return [_known(one, item, f"{path}[{number}]") for number, one in enumerate(value)]
        case types.StructType(fields=fields), dict():
            by_name = {field.encode_name: field.type for field in fields}
            for name in value:
                if name not in by_name:
                    raise ConfigError(joined(path, name), f"unknown key; {choices(name, by_name)}")
            given = {name: one for name, one in value.items() if one is not None}
            return {name: _known(one, by_name[name], joined(path, name)) for name, one in given.items()}
    return value


def joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _scalar(kind: type, value: object) -> Any:
    try:
        if kind is Seconds and isinstance(value, str):
            return Seconds(duration(value))
        if kind is Amount and isinstance(value, str | int | float) and not isinstance(value, bool):
            return Amount(quantity(str(value)))
    except ValueError:
        pass
    rule = "a duration such as 60s or 1m30s" if kind is Seconds else "a quantity, 0 or more, such as 1Gi or 5000"
    raise ValueError(f"expected {rule}, got {value!r}")
