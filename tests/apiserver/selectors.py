"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.apiserver.errors import bad_request
from tests.apiserver.kinds import Kind

Test = Callable[[dict[str, Any]], bool]
"""Whether an object is selected."""
_KEY = r"(?:[A-Za-z0-9.-]+/)?[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?"
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EQUALITY = re.compile(rf"({_KEY})\s*(==|=|!=|>|<)\s*({_VALUE})")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})")
_COMMA = re.compile(r",(?![^(]*\))")

LabelTest = Callable[[Mapping[str, str]], bool]


def labels(text: str) -> Test | None:
    """Label selector syntax in full; None selects everything."""
    if not text.strip():
        return None
    tests = [_requirement(part.strip()) for part in _COMMA.split(text)]

    def selected(content: dict[str, Any]) -> bool:
        found = content["metadata"].get("labels")
        found = found if isinstance(found, dict) else {}
        return all(test(found) for test in tests)

    return selected


def _requirement(text: str) -> LabelTest:
    if match := _SET.fullmatch(text):
        key, operator, listed = match.groups()
        values = {value.strip() for value in listed.split(",")}
        return _among(key, values) if operator == "in" else _not_among(key, values)
    if match := _EQUALITY.fullmatch(text):
        return _compared(*match.groups())
    if match := _EXISTS.fullmatch(text):
        absent, key = match.groups()
        return (lambda found: key not in found) if absent else (lambda found: key in found)
    raise bad_request(f"unable to parse requirement: found '{text}', expected: ',' or an operator with its values")


def _among(key: str, values: set[str]) -> LabelTest:
    return lambda found: found.get(key) in values


def _not_among(key: str, values: set[str]) -> LabelTest:
    """Objects without the label are selected too."""
    return lambda found: found.get(key) not in values


def _compared(key: str, operator: str, value: str) -> LabelTest:
    if operator in {"=", "=="}:
        return _among(key, {value})
    if operator == "!=":
        return _not_among(key, {value})
    if not re.fullmatch(r"-?\d+", value):
        raise bad_request(f"unable to parse requirement: {value} of Gt or Lt is no integer")
    limit = int(value)
    return lambda found: _number(found, key, lambda number: number > limit if operator == ">" else number < limit)


def _number(found: Mapping[str, str], key: str, test: Callable[[int], bool]) -> bool:
    text = found.get(key, "")
    return bool(re.fullmatch(r"-?\d+", text)) and test(int(text))


def fields(kind: Kind, text: str) -> Test | None:
    """`path=value`, `path==value` and `path!=value`, joined by commas; only fields the kind has."""
    if not text.strip():
        return None
    tests = [_field(kind, part) for part in re.split(r"(?<!\\),", text)]
    return lambda content: all(test(content) for test in tests)


def _field(kind: Kind, text: str) -> Test:
    match = re.fullmatch(r"([^=!]+)(!=|==|=)(.*)", text)
    if match is None:
        raise bad_request(f"invalid selector: '{text}'; can't understand '{text}'")
    path, operator, value = match.groups()
    if path not in {"metadata.name", "metadata.namespace", *kind.fields}:
        raise bad_request(f"field label not supported: {path}")
    steps = path.split(".")
    value = re.sub(r"\\(.)", r"\1", value)
    wanted = operator != "!="
    return lambda content: (_text(content, steps) == value) is wanted


def named(text: str) -> str:
    """The name that a field selector asks for, else ""."""
    match = re.search(r"(?:^|,)metadata\.name==?([^,]+)", text)
    return match[1] if match else ""


def _text(content: Any, steps: list[str]) -> str:
    for step in steps:
        content = content.get(step) if isinstance(content, dict) else None
    if isinstance(content, bool):
        return str(content).lower()
    return "" if content is None else str(content)


def both(first: Test | None, second: Test | None) -> Test | None:
    if first is None or second is None:
        return first or second
    return lambda content: first(content) and second(content)
