"""Words of a command line → flags and their texts, as tolerant as manifests in the wild need it.

Go's rules (a switch takes a value only after `=`, words that are no flags are ignored) and beyond them: one dash or
two, camelCase, underscores, empty words anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

GLUED = re.compile(r"-v(\d+)")
"""`-v4`: the one short flag may stand right before its number."""


class OptionsError(ValueError):
    """A command line that can't be used; the text names the flag, the rule and the remedy."""


@dataclass(frozen=True, slots=True)
class Word:
    """A flag as it was given; `text` is None for a bare switch. With `flag` "": a word that is no flag."""

    flag: str
    text: str | None


def plain(name: str) -> str:
    """The form in which spellings of one flag are equal: pool-name, poolName, pool_name."""
    return name.replace("-", "").replace("_", "").lower()


def read(argv: Iterable[str], flags: Mapping[str, bool]) -> Iterator[Word]:
    """The flags of `argv` in order. `flags`: name → is it a switch? Raises OptionsError."""
    names = {plain(name): name for name in flags} | {"h": "help"}
    words = iter(argv)
    for word in words:
        if word == "--":
            return
        if word[:1] != "-" or word == "-":
            if word:
                yield Word("", word)
            continue
        if glued := GLUED.fullmatch(word):
            yield Word("v", glued[1])
            continue
        typed, equals, text = word.partition("=")
        flag = _known(typed, names)
        if equals:
            yield Word(flag, text)
        else:
            yield Word(flag, None if flags[flag] else _following(flag, words, names))


def _known(typed: str, names: Mapping[str, str]) -> str:
    flag = names.get(plain(typed.lstrip("-")))
    if flag is None:
        raise OptionsError(f"unknown flag {typed}; {_nearest(typed, names)}")
    return flag


def _nearest(typed: str, names: Mapping[str, str]) -> str:
    close = get_close_matches(plain(typed), names, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(f'--{names[name]}' for name in close)}?" if close else "see epp --help"


def _following(flag: str, words: Iterator[str], names: Mapping[str, str]) -> str:
    text = next(words, None)
    if text is None:
        raise OptionsError(f"--{flag} needs a value: --{flag}=VALUE")
    if text[:1] == "-" and plain(text.partition("=")[0].lstrip("-")) in names:
        raise OptionsError(f"--{flag} needs a value, but the next word is the flag {text.partition('=')[0]}")
    return text
