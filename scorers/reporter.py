"""request-attribute-reporter: a number computed from a request's usage, told to Envoy as dynamic metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

from epp import Decision, Outcome, Request, Usage

LB_NAMESPACE = "envoy.lb"
SAMPLE = Usage(prompt_tokens=100, completion_tokens=20, total_tokens=120, cached_tokens=60)
"""What expressions are tried on at start."""
Text = Annotated[str, Meta(min_length=1)]


class Key(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """Where in the metadata the number goes."""

    name: Text
    namespace: str = ""
    """envoy.lb if empty."""


class Attribute(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A number and when it is told, as CEL expressions over `usage`."""

    key: Key
    expression: Text
    condition: str = ""


class RequestAttributeReporter:
    """Report one number about a finished request: a CEL expression over `usage`, cut to an integer; 0 is not reported.

    `usage` has the fields of the OpenAI API as doubles: prompt_tokens, completion_tokens, total_tokens and, if the
    engine told, prompt_tokens_details.cached_tokens.
    """

    def __init__(self, *, attributes: Annotated[tuple[Attribute, ...], Meta(min_length=1, max_length=1)]) -> None:
        (attribute,) = attributes
        self._namespace = attribute.key.namespace or LB_NAMESPACE
        self._name = attribute.key.name
        self._value = _program("expression", attribute.expression, (int, float))
        self._condition = _program("condition", attribute.condition or "true", bool)

    def finished(
        self, request: Request, decision: Decision, outcome: Outcome
    ) -> Mapping[str, Mapping[str, float]] | None:
        if outcome.usage is None:
            return None
        usage = _usage(outcome.usage)
        if self._condition.execute(usage) is not True:
            return None
        value = int(self._value.execute(usage))
        return {self._namespace: {self._name: float(value)}} if value else None


def _program(what: str, text: str, kind: type | tuple[type, ...]) -> Any:  # cel.Program, imported where it is needed
    """A compiled expression that gives a `kind` for SAMPLE; ValueError if it does not."""
    import cel

    try:
        program = cel.compile(text)
        found = program.execute(_usage(SAMPLE))
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"attributes[0].{what} {text!r} can't be computed from usage: {error}") from error
    if not isinstance(found, kind) or (kind is not bool and isinstance(found, bool)):
        wanted = "true or false" if kind is bool else "a number"
        raise ValueError(f"attributes[0].{what} {text!r} must give {wanted}; gives {found!r}")
    return program


def _usage(usage: Usage) -> dict[str, dict[str, Any]]:  # CEL's variables: numbers and one nested record
    fields: dict[str, Any] = {
        "prompt_tokens": float(usage.prompt_tokens),
        "completion_tokens": float(usage.completion_tokens),
        "total_tokens": float(usage.total_tokens),
    }
    if usage.cached_tokens is not None:
        fields["prompt_tokens_details"] = {"cached_tokens": float(usage.cached_tokens)}
    return {"usage": fields}
