"""The list of plug-ins: every type with kinds, settings and what it does, the broken ones too."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

from epp.cli_plugins import listing, one, type_name
from epp.plugins import Catalogue
from tests.config_kit import catalogue


def test_a_type_is_shown_with_kinds_settings_and_one_line_of_doc() -> None:
    assert one(catalogue(), "by-heat") == (
        'by-heat  [scorer]  from tests.config_kit\n    Prefer the cold.\n    - heatProducerName  text  = ""\n'
    )


def test_experimental_deprecated_and_providing_types_say_so() -> None:
    text = listing(catalogue())
    assert "bold  [scorer]  experimental; from" in text
    assert "both  [filter, scorer]  deprecated: use even; from" in text
    assert "moody  [signal]  from tests.config_kit; provides mood\n" in text


def test_a_broken_type_is_shown_with_its_error_among_the_others() -> None:
    text = listing(catalogue())
    assert "broken  [broken]\n    plug-in 'broken' (tests.config_kit:no_such_name) can't be imported:" in text
    assert "\nwords  [parser]" in text


def test_the_parts_of_the_data_layer_are_listed_as_types_too() -> None:
    assert "metrics-data-source  [data layer]\n" in listing(catalogue())


def test_a_type_alone_is_shown_with_its_whole_text() -> None:
    whole = one(Catalogue.installed(), "prefix-cache-scorer")
    assert len(whole) > len(listing(Catalogue.installed()).partition("\nprefix-cache-scorer")[2].partition("\n\n")[0])


def test_a_type_that_is_not_there_has_no_text() -> None:
    assert one(catalogue(), "nobody") == ""


def test_the_list_fits_a_hundred_columns() -> None:
    assert max(map(len, listing(Catalogue.installed()).splitlines())) <= 100


class Nested(msgspec.Struct, rename="camel"):
    some_key: int = 0
    other: str = ""


NAMES = {
    "a number": (float, "number"),
    "with bounds": (Annotated[int, msgspec.Meta(ge=1, le=9)], "whole number ≥ 1 ≤ 9"),
    "optional": (float | None, "number"),
    "either": (int | str, "whole number or text"),
    "choices": (Literal["a", "b"], "a|b"),
    "a list": (tuple[str, ...], "list of text"),
    "a mapping": (dict[str, int], "mapping"),
    "a record": (Nested, "{someKey, other}"),
    "a list of records": (list[Nested] | None, "list of {someKey, other}"),
    "anything": (Any, "Any"),
}


@pytest.mark.parametrize(("annotation", "name"), NAMES.values(), ids=list(NAMES))
def test_types_are_told_in_words(annotation: object, name: str) -> None:
    assert type_name(annotation) == name
