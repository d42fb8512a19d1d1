"""What `epp --help` prints: the flag table with the text that stands under each field of Options."""

from __future__ import annotations

import ast
import inspect
from itertools import pairwise

from epp.options import Flag, Options, flags
from epp.units import DURATION_UNITS_S

INDENT = " " * 6
HEAD = "epp [flags]   picks an endpoint for each inference request that Envoy asks about (ext_proc)"


def help_text() -> str:
    """All flags by section, each with its kind, default and text."""
    texts = docs()
    lines = [HEAD]
    section = ""
    for flag in flags():
        if flag.section != section:
            section = flag.section
            lines += ["", section]
        lines += [f"  {usage(flag)}", *(INDENT + line for line in texts[flag.name.replace("-", "_")].splitlines())]
    return "\n".join(lines) + "\n"


def docs() -> dict[str, str]:
    """The docstring under each field of Options."""
    (tree,) = ast.parse(inspect.getsource(Options)).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(tree.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def usage(flag: Flag) -> str:
    """`--drain-timeout duration (30s)`."""
    name = f"-{flag.name}, --{flag.name}" if len(flag.name) == 1 else f"--{flag.name}"
    kind = f" {flag.kind.word}" if flag.kind.word else ""
    default = shown(flag)
    return f"{name}{kind}{f' ({default})' if default else ''}"


def shown(flag: Flag) -> str:
    """The default as one would write it; "" = none."""
    if flag.kind.word == "duration":
        unit = "s" if flag.default >= 1 else "ms"
        return f"{flag.default / DURATION_UNITS_S[unit]:g}{unit}"
    if flag.kind.word == "quantity":
        size, unit = (flag.default >> 30, "Gi") if flag.default >= 1 << 30 else (flag.default >> 20, "Mi")
        return f"{size}{unit}" if flag.default else ""
    if isinstance(flag.default, bool):
        return "true" if flag.default else "false"
    return "" if flag.default in {None, "", ()} else str(flag.default)
